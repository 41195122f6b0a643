package reactor

import (
	"encoding/binary"
	"io"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Accept takes one connection from a listening socket of [DetachListener], and says who the other end is. It returns [ErrAgain] when nobody
// waits, any other error as the kernel gave it; see [Aborted].
func Accept(listener int) (fd int, peer netip.AddrPort, err error) {
	var sa unix.RawSockaddrInet6 // room for both families, which begin with the same fields
	size := uint32(unsafe.Sizeof(sa))
	n, _, errno := syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listener), uintptr(unsafe.Pointer(&sa)),
		uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, netip.AddrPort{}, errno
	}
	return int(n), addrPort(&sa), nil
}

// Connect begins a TCP connection to addr, which must have no zone, from the address from, or from the system's choice where that is the
// zero value. It is there, or has failed, when the descriptor becomes writable: register it, then ask [Connected]. An error (out of
// descriptors or ports, no route) leaves nothing open.
//
// All of it is raw: on loopback the kernel does the whole handshake within the call, and the scheduler would take the processor away.
func Connect(addr netip.AddrPort, from netip.Addr) (fd int, err error) {
	family := uintptr(unix.AF_INET6)
	if addr.Addr().Is4() {
		family = unix.AF_INET
	}
	n, _, errno := syscall.RawSyscall(unix.SYS_SOCKET, family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if errno != 0 {
		return -1, os.NewSyscallError("socket", errno)
	}
	fd = int(n)
	noDelay(fd)
	if from.IsValid() {
		if err := bindTo(fd, from); err != nil {
			Close(fd)
			return -1, err
		}
	}
	sa, size := rawAddr(addr)
	_, _, errno = syscall.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), size)
	if errno != 0 && errno != unix.EINPROGRESS {
		Close(fd)
		return -1, os.NewSyscallError("connect", errno)
	}
	return fd, nil
}

// bindTo chooses the address that fd connects from. The port is chosen by connect, which knows the peer: bind would take one away from
// all peers, and could not give more of them than there are in ip_local_port_range.
func bindTo(fd int, from netip.Addr) error {
	if err := SetOption(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
		return err
	}
	sa, size := rawAddr(netip.AddrPortFrom(from, 0))
	if _, _, errno := syscall.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&sa)), size); errno != 0 {
		return os.NewSyscallError("bind", errno)
	}
	return nil
}

// PortAtConnect lets a [net.Dialer], as its Control, choose its port as [Connect] does.
func PortAtConnect(_, _ string, c syscall.RawConn) error {
	var err error
	if refused := c.Control(func(fd uintptr) {
		err = SetOption(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	}); refused != nil {
		return refused
	}
	return err
}

// Connected says what has become of [Connect]: nil, [ErrAgain] as long as it is under way, or the kernel's refusal. A socket that has met
// itself, which happens when the kernel chooses the very port that nobody listens on, was refused.
func Connected(fd int) error {
	peer, errno := nameOf(unix.SYS_GETPEERNAME, fd)
	if errno != 0 { // under way, or refused
		errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		switch {
		case err != nil:
			return os.NewSyscallError("getsockopt", err)
		case errno != 0:
			return os.NewSyscallError("connect", unix.Errno(errno))
		}
		return ErrAgain
	}
	local, errno := nameOf(unix.SYS_GETSOCKNAME, fd)
	switch {
	case errno != 0:
		return os.NewSyscallError("getsockname", errno)
	case local == peer:
		return os.NewSyscallError("connect", unix.ECONNREFUSED)
	}
	return nil
}

// nameOf asks for one of the two addresses of a connection.
func nameOf(call uintptr, fd int) (netip.AddrPort, syscall.Errno) {
	var sa unix.RawSockaddrInet6
	size := uint32(unsafe.Sizeof(sa))
	_, _, errno := syscall.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)))
	return addrPort(&sa), errno
}

// Peek is [Read], but leaves the bytes where they are.
func Peek(fd int, p []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
			unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno == unix.EAGAIN:
			return 0, ErrAgain
		case errno != 0:
			return 0, errno
		case n == 0:
			return 0, io.EOF
		default:
			return int(n), nil
		}
	}
}

// addrPort reads a socket address; ports are in network order. An address of another family is none.
func addrPort(sa *unix.RawSockaddrInet6) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:])
	switch sa.Family {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(sa)).Addr), port)
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), port)
	}
	return netip.AddrPort{}
}

// rawAddr writes a socket address.
func rawAddr(addr netip.AddrPort) (sa unix.RawSockaddrInet6, size uintptr) {
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], addr.Port())
	if addr.Addr().Is4() {
		sa.Family = unix.AF_INET
		(*unix.RawSockaddrInet4)(unsafe.Pointer(&sa)).Addr = addr.Addr().As4()
		return sa, unsafe.Sizeof(unix.RawSockaddrInet4{})
	}
	sa.Family, sa.Addr = unix.AF_INET6, addr.Addr().As16()
	return sa, unsafe.Sizeof(sa)
}

// Close closes a descriptor that its loop is done with. Of an error nothing can be made: Linux has let go of the descriptor in any case.
// Raw, like [Read], since nothing here waits for anything; but on loopback the kernel does a good part of the other end's work within
// the call, some 10 us, in which the scheduler would take the processor away.
func Close(fd int) { _, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// EndWrites is shutdown(2) with SHUT_WR, raw for the reason of [Close].
func EndWrites(fd int) error {
	if _, _, errno := syscall.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0); errno != 0 {
		return os.NewSyscallError("shutdown", errno)
	}
	return nil
}

// SchedYield is sched_yield(2): whichever threads of the machine wait for this processor run first. The kernel would let this one go on until
// its next tick: 4 ms where there are 250 a second.
func SchedYield() { _, _, _ = syscall.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }

// SetOption sets a socket option that is a number. It can only fail for what is no TCP socket, or no descriptor.
func SetOption(fd, level, name, value int) error {
	v := int32(value)
	_, _, errno := syscall.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v), 0)
	if errno != 0 {
		return os.NewSyscallError("setsockopt", errno)
	}
	return nil
}
