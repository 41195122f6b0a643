//go:build unix

package pushlink

import (
	"errors"
	"net"
	"syscall"

	"github.com/selvedge/selvedge/internal/reactor"
)

// writeNow writes what the socket takes without waiting.
func writeNow(fd uintptr, p []byte) int {
	n, _ := reactor.Write(int(fd), p)
	return n
}

// quick is a connection that is read past Go's scheduler, as sessions are: the system call neither waits nor needs to be watched. A watch that has
// to be begun for each small read of an idle process costs it a fifth of its time.
type quick struct {
	net.Conn
	raw syscall.RawConn
}

// quickly returns conn as it is where it has no descriptor of its own, as with TLS.
func quickly(conn net.Conn) net.Conn {
	if c, ok := conn.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			return quick{conn, raw}
		}
	}
	return conn
}

// Read waits, as that of the connection does, in Go's poller.
func (q quick) Read(p []byte) (n int, err error) {
	failed := q.raw.Read(func(fd uintptr) bool {
		n, err = reactor.Read(int(fd), p)
		return !errors.Is(err, reactor.ErrAgain)
	})
	if failed != nil { // a deadline has passed, or the connection was closed
		return 0, failed
	}
	return n, err
}

func (q quick) isOver() (is bool) {
	var one [1]byte
	err := q.raw.Control(func(fd uintptr) {
		_, err := reactor.Peek(int(fd), one[:])
		is = err != nil && !errors.Is(err, reactor.ErrAgain)
	})
	return is || err != nil
}
