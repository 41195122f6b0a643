//go:build unix

package tunnel

import (
	"crypto/tls"
	"errors"
	"net"

	"github.com/selvedge/selvedge/internal/reactor"
)

// mostOwed is how many bytes of TLS may wait for a peer to take them. What a tunnel writes is less, [bufferSize] at a time and only when
// nothing waits; a peer that asks for new keys again and again without reading the answers gets there.
const mostOwed = 2 * bufferSize

var errOwed = errors.New("the peer asks for answers of TLS and does not read them")

// userland is what a tunnel has in user space beside its sockets. Most tunnels have none.
type userland struct {
	pump *pump      // nil on the reactor
	tls  [2]*secure // by side; nil for an end without TLS
}

// secure is the TLS of an end: crypto/tls reads and writes sockets through the wire, and never waits. Idle, it costs what a *tls.Conn does.
type secure struct {
	conn *tls.Conn
	wire *Wire
}

// onWire returns c's TLS if a tunnel can take the socket from under it; nil otherwise.
func onWire(c net.Conn) *secure {
	conn, ok := c.(*tls.Conn)
	if !ok {
		return nil
	}
	wire, ok := conn.NetConn().(*Wire)
	if !ok {
		return nil
	}
	return &secure{conn, wire}
}

// under puts the tunnel's sockets, whose descriptors it has, under the TLS of either side, nil where there is none.
func (t *Tunnel) under(c, b *secure) {
	if c == nil && b == nil {
		return
	}
	t.user = &userland{tls: [2]*secure{client: c, backend: b}}
	for i, s := range t.user.tls {
		if s != nil {
			s.wire.enter(int(t.ends[i].fd))
		}
	}
}

// secure is the TLS of a side; nil: none.
func (t *Tunnel) secure(s side) *secure {
	if t.user == nil {
		return nil
	}
	return t.user.tls[s]
}

// copySecure is copy where at least one end has TLS. One read brings at most a record.
func (t *Tunnel) copySecure(from side, src, dst *end) int {
	s, buf := t.secure(from), t.shard.loop.Scratch()
	if s == nil {
		return t.copy(from, src, dst)
	}
	n, err := s.conn.Read(buf)
	if n == 0 {
		t.took(from, src, err)
	} else { // an error that comes with bytes comes again
		t.pass(from, dst, buf[:n])
	}
	if t.state == closed {
		return n
	}
	if len(s.wire.owed) > mostOwed {
		t.fail(from, errOwed)
		return n
	}
	t.owes(from)
	return n
}

// passSecure writes plain bytes to an end with TLS, which takes all of them: what its socket does not take is owed.
func (t *Tunnel) passSecure(from side, s *secure, p []byte) {
	n, err := s.conn.Write(p)
	t.count(from, n, false)
	if err != nil {
		t.fail(from.other(), err)
		return
	}
	t.owes(from.other())
}

// owes notes what the TLS of a side has not been able to write. The wire has met ErrAgain then, so that an event will come.
func (t *Tunnel) owes(s side) {
	if e := &t.ends[s]; e.writable && len(t.user.tls[s].wire.owed) > 0 {
		e.writable = false
		e.reg.Drained(reactor.Writable)
	}
}

// settle writes what the TLS of the flow's destination owes. False: it is full, or broken.
func (t *Tunnel) settle(from side, dst *end) bool {
	s := t.secure(from.other())
	if s == nil || len(s.wire.owed) == 0 {
		return true
	}
	if !dst.writable {
		return false
	}
	if err := s.wire.flush(); err != nil {
		t.refused(from, dst, err)
		return false
	}
	return true
}
