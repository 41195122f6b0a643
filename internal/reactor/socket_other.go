//go:build unix && !linux

package reactor

import (
	"io"
	"net/netip"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Accept takes one connection from a listening socket that does not block, with TCP_NODELAY as package net sets it, and says who the
// other end is. It returns [ErrAgain] when nobody waits, any other error as the kernel gave it; see [Aborted].
func Accept(listener int) (fd int, peer netip.AddrPort, err error) {
	syscall.ForkLock.RLock() // until it is close-on-exec
	fd, sa, err := unix.Accept(listener)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return -1, netip.AddrPort{}, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return -1, netip.AddrPort{}, err
	}
	noDelay(fd)
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		peer = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		peer = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return fd, peer, nil
}

// Connect begins a TCP connection to addr, which must have no zone, from the address from, or from the system's choice where that is the
// zero value. It is there, or has failed, when the descriptor becomes writable: register it, then ask [Connected]. An error (out of
// descriptors or ports, no route) leaves nothing open.
func Connect(addr netip.AddrPort, from netip.Addr) (fd int, err error) {
	family := unix.AF_INET6
	if addr.Addr().Is4() {
		family = unix.AF_INET
	}
	syscall.ForkLock.RLock()
	fd, err = unix.Socket(family, unix.SOCK_STREAM, unix.IPPROTO_TCP)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	noDelay(fd)
	if from.IsValid() {
		err = unix.Bind(fd, sockaddr(netip.AddrPortFrom(from, 0)))
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err == nil {
		err = unix.Connect(fd, sockaddr(addr))
	}
	if err != nil && err != unix.EINPROGRESS {
		_ = unix.Close(fd)
		return -1, os.NewSyscallError("connect", err)
	}
	return fd, nil
}

func sockaddr(addr netip.AddrPort) unix.Sockaddr {
	if addr.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
}

// PortAtConnect is a [net.Dialer]'s Control that has an effect on Linux only.
func PortAtConnect(_, _ string, _ syscall.RawConn) error { return nil }

// Peek is [Read], but leaves the bytes where they are.
func Peek(fd int, p []byte) (int, error) {
	for {
		n, _, err := unix.Recvfrom(fd, p, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return 0, ErrAgain
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
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

// Close closes a descriptor that its loop is done with. Of an error nothing can be made.
func Close(fd int) { _ = unix.Close(fd) }

// EndWrites is shutdown(2) with SHUT_WR.
func EndWrites(fd int) error { return os.NewSyscallError("shutdown", unix.Shutdown(fd, unix.SHUT_WR)) }

// SchedYield lets other goroutines run; how to ask the kernel for the same is not known of these systems.
func SchedYield() { runtime.Gosched() }

// SetOption sets a socket option that is a number. It can only fail for what is no TCP socket, or no descriptor.
func SetOption(fd, level, name, value int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, level, name, value))
}
