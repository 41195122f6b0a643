//go:build unix

package tunnel

import (
	"github.com/selvedge/selvedge/internal/reactor"
)

// Socket is one side of a tunnel that is on the reactor already: a TCP socket that does not block, registered on a loop.
type Socket struct {
	FD           int
	Registration reactor.Registration

	// Early are bytes already read from the socket, or meant to come before them, as in [End].
	Early []byte

	// Drained says that nothing lies in the socket unread but what an event is still to come for: it need not be looked at.
	Drained bool

	// Prepared says that the socket was accepted from one that [Relay.Prepare] had seen before.
	Prepared bool
}

// Prepare sets options of a tunnel's sockets on a listening one. The connections that it accepts have them then, which saves four system
// calls each.
func (r *Relay) Prepare(listener int) { setInherited(listener, &r.cfg) }

// JoinOn is [Relay.Join] for two sockets that are registered on loop, one of the relay's reactor; it must be called from one of its
// callbacks. It takes descriptors and registrations. Its one error is [ErrClosed], and then both have been closed.
func (r *Relay) JoinOn(loop *reactor.Loop, c, b Socket, onClose func(Summary)) (*Tunnel, error) {
	t := &Tunnel{onClose: onClose}
	if err := r.enter(t, nil); err != nil {
		for _, s := range [2]Socket{c, b} {
			s.Registration.Unregister()
			reactor.Close(s.FD)
		}
		return nil, err
	}
	for _, s := range [2]*Socket{&c, &b} {
		if !s.Prepared {
			setInherited(s.FD, &r.cfg)
		}
		setRest(s.FD, &r.cfg)
	}
	t.init(c.FD, b.FD, c.Early, b.Early)
	t.shard = r.shardOf(loop)
	t.adopt(c, b)
	return t, nil
}

// shardOf finds the shard of a loop; there are as many as processors.
func (r *Relay) shardOf(loop *reactor.Loop) *shard {
	for _, s := range r.shards {
		if s.loop == loop {
			return s
		}
	}
	panic("tunnel: a loop of another reactor")
}

// adopt begins the tunnel's life on its loop with the registrations of others. They yield, so that both ends are looked at soon, unless there
// is nothing to see.
func (t *Tunnel) adopt(c, b Socket) {
	t.shard.append(t)
	for s, h := range [2]reactor.Handler{(*clientHandler)(t), (*backendHandler)(t)} {
		from := [2]*Socket{&c, &b}[s]
		t.ends[s].reg = from.Registration
		from.Registration.Give(h)
		if !from.Drained {
			from.Registration.Yield()
		}
	}
	if t.shard.closed {
		t.cut(Shutdown) // it was on its way when Relay.Close looked
		return
	}
	t.move(client)
	t.move(backend)
}
