//go:build unix

package reactor

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// What a loop needs to take and make TCP connections itself. All of it is non-blocking, and each descriptor returned is the caller's,
// non-blocking and close-on-exec.

// DetachListener takes the listening socket out of ln, which it closes: connections are accepted with [Accept] from then on, and those
// that wait in the kernel's queue stay there. With an error ln is as it was.
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
	return fd, nil
}

// Connected says what has become of [Connect]: nil, [ErrAgain] as long as it is under way, or the kernel's refusal. A socket that has met
// itself, which happens when the kernel chooses the very port that nobody listens on, was refused.
func Connected(fd int) error {
	peer, err := unix.Getpeername(fd)
	if err != nil { // under way, or refused
		errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		switch {
		case err != nil:
			return os.NewSyscallError("getsockopt", err)
		case errno != 0:
			return os.NewSyscallError("connect", unix.Errno(errno))
		}
		return ErrAgain
	}
	local, err := unix.Getsockname(fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	if sameAddr(local, peer) {
		return os.NewSyscallError("connect", unix.ECONNREFUSED)
	}
	return nil
}

func sameAddr(a, b unix.Sockaddr) bool {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		b, ok := b.(*unix.SockaddrInet4)
		return ok && a.Port == b.Port && a.Addr == b.Addr
	case *unix.SockaddrInet6:
		b, ok := b.(*unix.SockaddrInet6)
		return ok && a.Port == b.Port && a.Addr == b.Addr
	}
	return false
}

// Aborted tells an error of [Accept] that belongs to one connection, which has gone again: accept the next one.
func Aborted(err error) bool {
	return err == unix.ECONNABORTED || err == unix.EPROTO || err == unix.EINTR
}
