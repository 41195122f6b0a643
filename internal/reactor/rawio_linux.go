package reactor

import (
	"io"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Read reads once from a non-blocking socket. It returns [ErrAgain] when there is nothing to read at present, io.EOF at
// the end of the stream, any other error as the kernel gave it. p must not be empty.
//
// The call does not tell Go's scheduler, which is half of what a small read costs otherwise, and which is right because it
// never blocks.
func Read(fd int, p []byte) (int, error) {
	for {
		// recv(2): read(2) takes 0.2 us longer, in the layer of files that it has to go through.
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0)
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

// Write writes once to a non-blocking stream socket, maybe less than all of p. It returns [ErrAgain] when nothing can be
// written at present, any other error as the kernel gave it; it raises no SIGPIPE. Like [Read] it goes past the scheduler.
func Write(fd int, p []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
			unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, ErrAgain
		default:
			return 0, errno
		}
	}
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
