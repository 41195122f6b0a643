//go:build unix

package tunnel

import (
	"fmt"

	"github.com/selvedge/selvedge/internal/reactor"
)

// side names an end of a tunnel, and the flow that comes from it.
type side uint8

const (
	client side = iota
	backend
)

func (s side) other() side { return 1 - s }

func (s side) String() string { return [...]string{"client", "backend"}[s] }

// state is where a tunnel is in its life: it only ever goes up.
type state uint8

const (
	moving  state = iota
	cutting       // Close or a timeout: write what is held, FIN both ways, discard the rest
	closed        // descriptors and backlogs are given back
)

// Tunnel joins two connections. It is made by [Relay.Join].
type Tunnel struct {
	// Static.
	shard   *shard    // nil for a tunnel with goroutines
	user    *userland // nil for two plain sockets
	onClose func(Summary)

	// Owned by the shard's loop. Everything is counted: this is what an idle session costs.
	prev, next *Tunnel // in the shard's list
	linger     *reactor.Timer
	ends       [2]end  // by side
	flows      [2]flow // by the side they come from
	active     uint32  // shard.clock at the last activity
	state      state
	reason     Reason // of a cut, once cutting
	first      side   // whose stream ended first, once one has
}

// end is one socket. What is known of its readiness stays true until the kernel says ErrAgain.
type end struct {
	reg      reactor.Registration
	fd       int32
	readable bool
	ending   bool // reactor.Ending came with the last readable
	writable bool
}

// flow is one direction.
type flow struct {
	backlog  *backlog // bytes taken and not written, nil if none
	moved    int64    // bytes written
	splicing bool     // bulk: the next bytes go through a pipe
	ended    bool     // the source's stream has ended
	shut     bool     // and that has been passed on
}

// The two ends' handlers are the tunnel itself under two names: an interface value per registration and nothing more.
type (
	clientHandler  Tunnel
	backendHandler Tunnel
)

func (h *clientHandler) Ready(ev reactor.Events)  { (*Tunnel)(h).ready(client, ev) }
func (h *backendHandler) Ready(ev reactor.Events) { (*Tunnel)(h).ready(backend, ev) }

// Close cuts the tunnel for the given reason, which is the caller's: Drained, Moved, Expired or Shutdown. It returns at
// once; see the package comment for what the peers get to see. A tunnel that has ended, or is being cut, keeps the reason
// it has. It is safe from any goroutine.
func (t *Tunnel) Close(reason Reason) {
	if t.user != nil && t.user.pump != nil {
		t.user.pump.cut(reason)
		return
	}
	t.shard.loop.Post(func() { t.cut(reason) })
}

// init fills in what Join knows.
func (t *Tunnel) init(clientFD, backendFD int, fromClient, fromBackend []byte) {
	t.ends[client] = end{fd: int32(clientFD), writable: true}
	t.ends[backend] = end{fd: int32(backendFD), writable: true}
	if len(fromClient) > 0 {
		t.flows[client].backlog = &backlog{bytes: fromClient}
	}
	if len(fromBackend) > 0 {
		t.flows[backend].backlog = &backlog{bytes: fromBackend}
	}
}

// open begins the tunnel's life on its loop: bytes owed first, then whatever the first events say.
func (t *Tunnel) open() {
	for s, h := range [2]reactor.Handler{(*clientHandler)(t), (*backendHandler)(t)} {
		reg, err := t.shard.loop.Register(int(t.ends[s].fd), h)
		if err != nil {
			t.finish(Failed, err)
			return
		}
		t.ends[s].reg = reg
	}
	t.move(client)
	t.move(backend)
}

// ready takes the events of one end. Writable first: what was taken before goes out before more is read. Then readable.
// When there is an error it comes last, after the bytes that were received before it, and a broken end is not worth writing
// to.
func (t *Tunnel) ready(s side, ev reactor.Events) {
	if ev&reactor.Hangup == 0 {
		t.canWrite(s, ev)
		t.canRead(s, ev)
		return
	}
	t.canRead(s, ev)
	if t.state == closed {
		return
	}
	if err := pendingError(int(t.ends[s].fd)); err != nil {
		t.fail(s, err)
		return
	}
	t.canWrite(s, ev)
}

// canWrite goes on with the flow to s, if it waited for that.
func (t *Tunnel) canWrite(s side, ev reactor.Events) {
	if e := &t.ends[s]; ev&reactor.Writable != 0 && !e.writable && t.state != closed {
		e.writable = true
		t.move(s.other())
	}
}

// canRead goes on with the flow from s.
func (t *Tunnel) canRead(s side, ev reactor.Events) {
	if e := &t.ends[s]; ev&reactor.Readable != 0 && t.state != closed {
		e.readable, e.ending = true, ev&reactor.Ending != 0
		if tls := t.secure(s); tls != nil {
			tls.wire.heard(e.ending)
		}
		t.move(s)
	}
}

// cut ends the tunnel from this side of it. The flows do the rest; the timer is for peers that do not play along.
func (t *Tunnel) cut(reason Reason) {
	if t.state != moving {
		return
	}
	t.state, t.reason = cutting, reason
	t.linger = t.shard.loop.AfterFunc(lingerTime, func() { t.finish(t.reason, nil) })
	for s := range t.ends {
		t.ends[s].readable = true // flows that wait for input have something to do now
		t.move(side(s))
	}
}

// fail ends the tunnel because the connection of a side is broken. The other one learns it by a reset.
func (t *Tunnel) fail(s side, err error) {
	if t.state == closed {
		return
	}
	err = fmt.Errorf("tunnel: %v: %w", s, err)
	if t.state == cutting {
		t.finish(t.reason, err) // the other end has its FIN, or as much of the stream as there was time for
		return
	}
	for i := range t.ends {
		resetOnClose(int(t.ends[i].fd))
	}
	t.finish(reasonOf(s, err), err)
}

// passEnd passes the end of a flow on: FIN to its destination, after the last byte, and TLS's own word for it before that. The second one
// ends the tunnel.
func (t *Tunnel) passEnd(s side) {
	f := &t.flows[s]
	if tls := t.secure(s.other()); tls != nil {
		_ = tls.conn.CloseWrite() // does it once; a connection that is broken says so below
		if t.owes(s.other()); len(tls.wire.owed) > 0 {
			return
		}
	}
	f.shut = true
	if t.state == moving && !t.flows[s.other()].shut {
		t.first = s
	}
	if err := reactor.EndWrites(int(t.ends[s.other()].fd)); err != nil {
		t.fail(s.other(), err)
	}
}

// finishIfDone ends the tunnel when both streams have ended and both peers know.
func (t *Tunnel) finishIfDone() {
	a, b := &t.flows[client], &t.flows[backend]
	if t.state == closed || !a.ended || !a.shut || !b.ended || !b.shut {
		return
	}
	if t.state == cutting {
		t.finish(t.reason, nil)
		return
	}
	t.finish(ClientClosed+Reason(t.first), nil)
}

// finish gives everything back and tells the owner. It is the only way out, and is taken once.
func (t *Tunnel) finish(reason Reason, err error) {
	if t.state == closed {
		return
	}
	t.state = closed
	if t.linger != nil {
		t.linger.Stop()
	}
	for s := range t.ends {
		t.ends[s].reg.Unregister()
		if tls := t.secure(side(s)); tls != nil {
			tls.wire.leave()
		}
		reactor.Close(int(t.ends[s].fd))
		t.shard.drop(t.flows[s].backlog)
		t.flows[s].backlog = nil
	}
	t.shard.unlink(t)
	done := t.onClose
	t.onClose = nil
	if done != nil {
		done(Summary{Reason: reason, Err: err, ToBackend: t.flows[client].moved, ToClient: t.flows[backend].moved})
	}
	t.shard.relay.leave(t)
}
