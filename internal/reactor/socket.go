//go:build unix

package reactor

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// What a loop needs to take and make TCP connections itself. All of it is non-blocking, and each descriptor returned is the caller's,
// non-blocking and close-on-exec.

// DetachListener takes the listening socket out of ln, which it closes: connections are accepted with [Accept] from then on, and those
// that wait in the kernel's queue stay there. With an error ln is as it was. What options it has, the connections have from the start (on
// Linux), TCP_NODELAY, which package net sets, among them.
func DetachListener(ln *net.TCPListener) (int, error) {
	raw, err := ln.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("reactor: detach: %w", err)
	}
	fd, err := duplicate(raw)
	if err != nil {
		return -1, err
	}
	_ = ln.Close() // the socket lives on in fd
	noDelay(fd)
	return fd, nil
}

// noDelay can only fail for what is no TCP socket.
func noDelay(fd int) { _ = SetOption(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) }

// Aborted tells an error of [Accept] that belongs to one connection, which has gone again: accept the next one.
func Aborted(err error) bool {
	return err == unix.ECONNABORTED || err == unix.EPROTO || err == unix.EINTR
}
