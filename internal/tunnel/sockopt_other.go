//go:build unix && !linux

package tunnel

import (
	"golang.org/x/sys/unix"

	"github.com/selvedge/selvedge/internal/reactor"
)

// setOptions turns keepalive on, with the system's own times: their names differ from system to system. Errors mean that fd
// is no TCP socket, which has no dead peers to find.
func setOptions(fd int, cfg *Config) {
	if cfg.KeepAlive > 0 {
		_ = reactor.SetOption(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	}
}

// setInherited sets nothing: what connections have of their listening socket differs from system to system.
func setInherited(int, *Config) {}

// setRest sets what setInherited has not.
func setRest(fd int, cfg *Config) { setOptions(fd, cfg) }
