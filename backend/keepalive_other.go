//go:build unix && !linux

package backend

import (
	"golang.org/x/sys/unix"

	"github.com/selvedge/selvedge/internal/reactor"
)

// keepAlive has the kernel ask the clients of listener whether they are there, as often as the system does.
func keepAlive(listener int) {
	_ = reactor.SetOption(listener, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
}
