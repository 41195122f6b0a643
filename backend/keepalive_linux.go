package backend

import (
	"golang.org/x/sys/unix"

	"github.com/selvedge/selvedge/internal/reactor"
)

// keepAlive has the kernel ask the clients of listener whether they are there, as often as package net does.
func keepAlive(listener int) {
	const seconds, probes = 15, 9
	for option, value := range map[int]int{unix.TCP_KEEPIDLE: seconds, unix.TCP_KEEPINTVL: seconds, unix.TCP_KEEPCNT: probes} {
		_ = reactor.SetOption(listener, unix.IPPROTO_TCP, option, value) // cannot fail for a TCP socket
	}
	_ = reactor.SetOption(listener, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
}
