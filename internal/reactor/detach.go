//go:build unix

package reactor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrAgain is returned by [Read] and [Write] when the descriptor is not ready: wait for the next event. It is the kernel's
// EAGAIN and may be compared with ==.
var ErrAgain error = unix.EAGAIN

// ErrNoDescriptor is returned by [Detach] for a connection that is not a descriptor of the kernel, such as a *tls.Conn or a
// net.Pipe: keep using the net.Conn.
var ErrNoDescriptor = errors.New("reactor: connection has no descriptor")

// Detach takes the socket out of conn: it returns a descriptor that is the caller's, non-blocking and close-on-exec, and
// closes conn. The connection itself goes on: what is in the kernel's buffers stays there. Bytes that a wrapper around the
// socket has already read are the caller's to save; a wrapper counts as having a descriptor if it has the method
// SyscallConn. Nobody may be reading from or writing to conn.
//
// With any error, [ErrNoDescriptor] or the kernel's (unix.EMFILE: close some descriptors, the socket is held twice for a
// moment), conn is as it was and still the caller's.
func Detach(conn net.Conn) (int, error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return -1, fmt.Errorf("%w (%T)", ErrNoDescriptor, conn)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("reactor: detach: %w", err)
	}
	fd, err := duplicate(raw)
	if err != nil {
		return -1, err
	}
	// The socket lives on in fd, so this closes one of its two descriptors, and takes it out of Go's poller.
	_ = conn.Close()
	return fd, nil
}

// Attach makes a connection of package net of a socket, the other way around. It takes fd, with an error too.
func Attach(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "")
	if f == nil {
		return nil, ErrNoDescriptor
	}
	defer f.Close() // the connection has another one
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("reactor: attach: %w", err)
	}
	return conn, nil
}

// duplicate returns another descriptor for the socket. Both share one file description, which Go's poller has made non-blocking already.
func duplicate(raw syscall.RawConn) (int, error) {
	fd, dupErr := -1, error(nil)
	err := raw.Control(func(s uintptr) {
		fd, dupErr = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err == nil {
		err = os.NewSyscallError("fcntl", dupErr)
	}
	if err != nil {
		return -1, fmt.Errorf("reactor: detach: %w", err)
	}
	return fd, nil
}
