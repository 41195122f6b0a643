//go:build unix && !linux

package tunnel

import "golang.org/x/sys/unix"

// setOptions turns keepalive on, with the system's own times: their names differ from system to system. Errors mean that fd
// is no TCP socket, which has no dead peers to find.
func setOptions(fd int, cfg *Config) {
	if cfg.KeepAlive > 0 {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	}
}
