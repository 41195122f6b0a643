package tunnel

import (
	"time"

	"golang.org/x/sys/unix"
)

// setOptions makes the kernel find dead peers. Errors mean that fd is no TCP socket, which has no dead peers to find.
func setOptions(fd int, cfg *Config) {
	if cfg.KeepAlive > 0 {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds(cfg.KeepAlive))
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds(cfg.KeepAlive/keepAliveProbes))
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAliveProbes)
	}
	if cfg.UserTimeout > 0 {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(cfg.UserTimeout/time.Millisecond))
	}
}
