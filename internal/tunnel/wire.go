//go:build unix

package tunnel

import (
	"net"
	"time"

	"github.com/selvedge/selvedge/internal/reactor"
)

// Wire is the connection under a *tls.Conn that a tunnel may take later. Until then it is what it stands on. In a tunnel it does not block:
// Read says [reactor.ErrAgain], which crypto/tls takes for a passing failure and gives back as it is, and Write takes everything, because a
// record that is written in part cannot be written again; what the socket does not take is owed.
type Wire struct {
	net.Conn // nil in a tunnel and after it

	// In a tunnel, owned by its loop.
	fd     int32  // -1 before and after
	dry    bool   // there is nothing to read until the next event
	ending bool   // reactor.Ending came with the last: a short read is not the end
	owed   []byte // taken and not written
}

// NewWire returns a Wire on conn, for tls.Server or tls.Client.
func NewWire(conn net.Conn) *Wire { return &Wire{Conn: conn, fd: -1} }

// NetConn returns the connection that the wire stands on; nil in a tunnel.
func (w *Wire) NetConn() net.Conn { return w.Conn }

// enter makes fd, which was taken out of Conn, what the wire stands on.
func (w *Wire) enter(fd int) { w.Conn, w.fd = nil, int32(fd) }

// leave is for when the tunnel closes the descriptor: whoever still has the TLS connection must not use the number.
func (w *Wire) leave() { w.fd, w.owed = -1, nil }

// heard notes an event that says that there is something to read.
func (w *Wire) heard(ending bool) { w.dry, w.ending = false, ending }

func (w *Wire) Read(p []byte) (int, error) {
	if w.Conn != nil {
		return w.Conn.Read(p)
	}
	if w.fd < 0 {
		return 0, net.ErrClosed
	}
	if w.dry {
		return 0, reactor.ErrAgain
	}
	n, err := reactor.Read(int(w.fd), p)
	w.dry = err == reactor.ErrAgain || err == nil && n < len(p) && !w.ending
	return n, err
}

func (w *Wire) Write(p []byte) (int, error) {
	if w.Conn != nil {
		return w.Conn.Write(p)
	}
	if w.fd < 0 {
		return 0, net.ErrClosed
	}
	rest := p
	if len(w.owed) == 0 {
		n, err := writeOn(w.fd, rest)
		if err != nil && err != reactor.ErrAgain {
			return n, err
		}
		rest = rest[n:]
	}
	w.owed = append(w.owed, rest...)
	return len(p), nil
}

// flush writes what is owed. [reactor.ErrAgain]: there is more.
func (w *Wire) flush() error {
	n, err := writeOn(w.fd, w.owed)
	if w.owed = w.owed[n:]; len(w.owed) == 0 {
		w.owed = nil
	}
	return err
}

// writeOn writes until there is no more, or the socket is full, or broken.
func writeOn(fd int32, p []byte) (written int, err error) {
	for len(p) > written {
		n, err := reactor.Write(int(fd), p[written:])
		if err != nil {
			return written, err
		}
		written += n
	}
	return written, nil
}

// Close closes what the wire stands on. A tunnel closes its descriptors itself.
func (w *Wire) Close() error {
	if w.Conn != nil {
		return w.Conn.Close()
	}
	return net.ErrClosed
}

// SetDeadline and the next two do nothing in a tunnel, where no call waits. crypto/tls sets one around its close_notify.
func (w *Wire) SetDeadline(t time.Time) error {
	if w.Conn != nil {
		return w.Conn.SetDeadline(t)
	}
	return nil
}

// SetReadDeadline is as SetDeadline.
func (w *Wire) SetReadDeadline(t time.Time) error {
	if w.Conn != nil {
		return w.Conn.SetReadDeadline(t)
	}
	return nil
}

// SetWriteDeadline is as SetDeadline.
func (w *Wire) SetWriteDeadline(t time.Time) error {
	if w.Conn != nil {
		return w.Conn.SetWriteDeadline(t)
	}
	return nil
}
