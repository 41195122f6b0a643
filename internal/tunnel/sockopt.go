//go:build unix

package tunnel

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// keepAliveProbes is how many unanswered probes end a connection that has no user timeout.
const keepAliveProbes = 3

// seconds rounds up to what socket options take.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// pendingError takes the error that the socket has to report, nil if there is none.
func pendingError(fd int) error {
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	if errno != 0 {
		return unix.Errno(errno)
	}
	return nil
}

// resetOnClose makes close send a reset instead of a FIN. It can only fail for what is no TCP socket, and has no reset.
func resetOnClose(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 0})
}

// reasonOf says what an error on the connection of a side means for the tunnel.
func reasonOf(s side, err error) Reason {
	switch {
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE), errors.Is(err, unix.ENOTCONN),
		errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe): // the last two: TLS cut short, net.Pipe
		return ClientReset + Reason(s)
	case errors.Is(err, unix.ETIMEDOUT), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH),
		errors.Is(err, unix.EHOSTDOWN), errors.Is(err, unix.ENETDOWN):
		return ClientLost + Reason(s)
	default:
		return Failed
	}
}
