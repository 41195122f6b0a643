package tunnel

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvedge/selvedge/internal/reactor"
)

// setOptions makes the kernel find dead peers. Errors mean that fd is no TCP socket, which has no dead peers to find.
func setOptions(fd int, cfg *Config) {
	setInherited(fd, cfg)
	setRest(fd, cfg)
}

// setInherited sets those options that connections have of the listening socket that they were accepted from.
func setInherited(fd int, cfg *Config) {
	if cfg.KeepAlive > 0 {
		_ = reactor.SetOption(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds(cfg.KeepAlive))
		_ = reactor.SetOption(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds(cfg.KeepAlive/keepAliveProbes))
		if cfg.UserTimeout <= 0 { // which the kernel goes by instead, where there is one
			_ = reactor.SetOption(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAliveProbes)
		}
		_ = reactor.SetOption(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1) // last: it starts the timer
	}
}

// setRest sets the others.
func setRest(fd int, cfg *Config) {
	if cfg.UserTimeout > 0 {
		_ = reactor.SetOption(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(cfg.UserTimeout/time.Millisecond))
	}
}
