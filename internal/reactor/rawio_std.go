//go:build unix && (!linux || race)

package reactor

import (
	"io"
	"syscall"
)

// Read reads once from a non-blocking descriptor. It returns [ErrAgain] when there is nothing to read at present, io.EOF at
// the end of the stream, any other error as the kernel gave it. p must not be empty.
//
// Package syscall tells the race detector that what was done before the bytes were written anywhere in the process comes before what is
// done once they are read. A test of a service, whose clients are of its own process, leans on that, knowing or not; with package net
// it could.
func Read(fd int, p []byte) (int, error) {
	for {
		n, err := syscall.Read(fd, p)
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
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
		n, err := syscall.Write(fd, p)
		switch err {
		case nil:
			return n, nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, ErrAgain
		default:
			return 0, err
		}
	}
}
