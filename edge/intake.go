package edge

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvedge/selvedge/internal/reactor"
)

// acceptBudget is how many connections are accepted before the loop's others have their turn.
const acceptBudget = 4

// intake accepts on the reactor. Connections begin there as openings, spread evenly over the loops: they stay on theirs as sessions for
// hours. To net/http it is a listener of the connections that turned out not to be for the reactor.
type intake struct {
	edge *Edge
	addr net.Addr
	loop *reactor.Loop

	// Owned by loop.
	fd      int
	reg     reactor.Registration
	lanes   []*lane // one for each loop
	own     *lane   // that of loop: the others belong to theirs
	turn    int     // counts connections
	pause   time.Duration
	resting bool // until the pause is over

	openings sync.WaitGroup // none begins once the loop has stopped to accept

	handed *reactor.Queue[handover] // bounded by descriptors; net/http takes them as fast as it can start goroutines
}

// handover is a connection that net/http is to go on with.
type handover struct {
	client  int      // descriptor
	head    []byte   // of a request that has been read off it; net/http reads it again
	attempt *attempt // what came of that, with the place that it holds; nil: nothing has been read
	member  int      // descriptor of the connection to the member that has been asked; -1: none
}

// newIntake takes the socket out of ln, and begins to accept. With an error ln is as it was, or closed.
func newIntake(e *Edge, ln *net.TCPListener, loops *reactor.Reactor) (*intake, error) {
	in := &intake{edge: e, addr: ln.Addr(), loop: loops.Loop(), pause: leastPause, handed: reactor.NewQueue[handover]()}
	for _, l := range loops.Loops() {
		in.lanes = append(in.lanes, newLane(in, l))
		if l == in.loop {
			in.own = in.lanes[len(in.lanes)-1]
		}
	}
	fd, err := reactor.DetachListener(ln)
	if err != nil {
		return nil, err
	}
	in.fd = fd
	e.relay.Load().Prepare(fd)
	registered := make(chan error, 1)
	in.loop.Post(func() { // before its events come
		var err error
		in.reg, err = in.loop.Register(fd, in)
		registered <- err
	})
	if err := <-registered; err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return in, nil
}

// Ready accepts who waits.
func (in *intake) Ready(ev reactor.Events) {
	if ev&reactor.Readable == 0 || in.resting {
		return
	}
	for range acceptBudget {
		fd, peer, err := reactor.Accept(in.fd)
		switch {
		case err == nil:
			in.pause = leastPause
			in.begin(fd, peer)
		case errors.Is(err, reactor.ErrAgain):
			in.reg.Drained(reactor.Readable)
			return
		case reactor.Aborted(err):
		default:
			in.rest(err)
			return
		}
	}
	in.own.giveWay()
	if in.edge.pace.isCrowded() {
		in.restFor(crowdedPause) // who waits in the kernel's queue takes no processor time from sessions; whoever is accepted is to be turned away
		return
	}
	in.reg.Yield()
}

// crowdedPause is between acceptBudget connections, and between openingsPerTurn heads on each loop, while more come than are let in: with two loops
// some 2,000 are turned away in a second.
const crowdedPause = 2 * time.Millisecond

// begin brings a connection to the next loop.
func (in *intake) begin(fd int, peer netip.AddrPort) {
	l := in.lanes[in.turn%len(in.lanes)]
	in.turn++
	in.openings.Add(1)
	if l.loop == in.loop {
		l.open(fd, peer)
	} else {
		l.loop.Post(func() { l.open(fd, peer) }) // loops end when all openings are over
	}
}

// rest leaves those who wait in the kernel's queue for a moment.
func (in *intake) rest(err error) {
	in.edge.cannotAccept(err, in.pause)
	in.restFor(in.pause)
	in.pause = min(2*in.pause, mostPause)
}

// restFor takes a timer of Go's: those of the loop are in step of 50 ms.
func (in *intake) restFor(d time.Duration) {
	in.resting = true
	time.AfterFunc(d, func() {
		in.loop.Post(func() {
			in.resting = false
			in.reg.Yield()
		})
	})
}

// drain stops to accept, closes connections that have not sent anything, leaves those with a part of a head to net/http, and returns when
// all other openings have come to their end, or have been cut short because ctx is over.
func (in *intake) drain(ctx context.Context) {
	stopped := make(chan struct{})
	in.loop.Post(func() {
		in.reg.Unregister()
		_ = unix.Close(in.fd)
		for _, l := range in.lanes {
			l.loop.Post(l.release) // after what has been posted by begin
		}
		close(stopped)
	})
	done := make(chan struct{})
	go func() {
		<-stopped
		in.openings.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		<-stopped
		for _, l := range in.lanes {
			l.loop.Post(l.abort)
		}
		<-done
	}
}

// give passes a connection on to net/http. After Close it is closed.
func (in *intake) give(h handover) {
	in.edge.metrics.handovers.Inc()
	if !in.handed.Put(h) {
		in.close(h)
	}
}

// close closes what nobody goes on with.
func (in *intake) close(h handover) {
	if h.client >= 0 {
		_ = unix.Close(h.client)
	}
	if h.member >= 0 {
		_ = unix.Close(h.member)
	}
	if h.attempt != nil {
		in.edge.abandon(h.attempt)
	}
}

// Accept returns the next connection that is for net/http.
func (in *intake) Accept() (net.Conn, error) {
	for {
		h, ok := in.handed.Take()
		if !ok {
			return nil, net.ErrClosed
		}
		c, err := in.conn(h)
		if err == nil {
			return c, nil
		}
		in.edge.cannotAccept(err, 0)
	}
}

// conn makes a connection of package net out of h.
func (in *intake) conn(h handover) (net.Conn, error) {
	client, err := reactor.Attach(h.client)
	if err != nil {
		h.client = -1
		in.close(h)
		return nil, err
	}
	c := &clientConn{Conn: client, refusals: in.edge.metrics.refusals, patience: in.edge.sendTimeout, abandon: in.edge.abandon, head: h.head}
	c.attempt.Store(h.attempt)
	if h.member >= 0 {
		if h.attempt.conn, err = reactor.Attach(h.member); err != nil {
			_ = c.Close()
			return nil, err
		}
	}
	return c, nil
}

// Addr is where the edge listens.
func (in *intake) Addr() net.Addr { return in.addr }

// Close ends Accept. Nobody accepts any more by then; see drain.
func (in *intake) Close() error {
	for _, h := range in.handed.Close() {
		in.close(h)
	}
	return nil
}

// abandon gives up an attempt that no handler has taken.
func (e *Edge) abandon(a *attempt) {
	if a.conn != nil {
		_ = a.conn.Close()
	}
	e.sessions.give(a.claim)
	e.metrics.refusals.WithLabelValues(string(clientGone)).Inc()
	e.metrics.upgraded(a.service().name, statusClientGone, a.x.started)
	a.x.refused = clientGone
	e.access.ended(a.x, statusClientGone, 0, 0)
}
