//go:build unix && !linux

package reactor

import (
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Read reads once from a non-blocking descriptor. It returns [ErrAgain] when there is nothing to read at present, io.EOF at
// the end of the stream, any other error as the kernel gave it. p must not be empty.
func Read(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Read(fd, p)
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

// Write writes once to a non-blocking stream socket, maybe less than all of p. It returns [ErrAgain] when nothing can be
// written at present, any other error as the kernel gave it. Go ignores the SIGPIPE that a broken connection raises.
func Write(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Write(fd, p)
		switch err {
		case nil:
			return n, nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, ErrAgain
		default:
			return 0, err
		}
	}
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
