package backend

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/selvedge/selvedge/internal/reactor"
)

const (
	acceptBudget    = 4 // connections that are accepted before the loop's sessions have their turn
	arrivalsPerTurn = 2 // heads that a loop reads in a turn: one takes it as long as ten messages

	acceptPause = 50 * time.Millisecond // after an error, as with no descriptors left

	headTimeout = 10 * time.Second // for a request's head, here and in net/http
	headMost    = 64 << 10         // bytes of it
)

// arrivals accepts on the reactor. A connection stays there if it is a plain upgrade, and becomes a session on the loop that has taken it. To
// net/http it is a listener of the others.
type arrivals struct {
	backend *Backend
	addr    net.Addr
	ctx     context.Context // of handshakes
	cancel  context.CancelFunc
	handed  *reactor.Queue[int] // descriptors of which nothing has been read; bounded by their limit

	// Owned by the loop that accepts.
	fd      int
	loop    *reactor.Loop
	reg     reactor.Registration
	resting bool // after an error
	lanes   []*lane
	turn    int // counts connections
}

// lane is the arrivals of one loop, which owns all of it.
type lane struct {
	arrivals *arrivals
	loop     *reactor.Loop
	there    map[*arrival]struct{}
	ready    []*arrival // that have something to read, oldest first
	closed   bool

	// For net/http's parser.
	src bytes.Reader
	br  *bufio.Reader
}

// receive begins to accept on ln, which it takes.
func (b *Backend) receive(ln net.Listener) (*arrivals, error) {
	tcp, is := ln.(*net.TCPListener)
	if !is {
		return nil, errors.New("sessions come by TCP")
	}
	fd, err := reactor.DetachListener(tcp)
	if err != nil {
		_ = ln.Close()
		return nil, err
	}
	as := &arrivals{backend: b, addr: ln.Addr(), handed: reactor.NewQueue[int](), fd: fd, loop: b.reactor.Loop()}
	as.ctx, as.cancel = context.WithCancel(context.Background())
	for _, l := range b.reactor.Loops() {
		as.lanes = append(as.lanes, &lane{arrivals: as, loop: l, there: make(map[*arrival]struct{}), br: bufio.NewReaderSize(nil, 1024)})
	}
	if b.cfg.PingEvery <= 0 { // else pings find out who is gone
		keepAlive(fd)
	}
	registered := make(chan error, 1)
	as.loop.Post(func() {
		var err error
		as.reg, err = as.loop.Register(fd, as)
		registered <- err
	})
	if err := <-registered; err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return as, nil
}

// Ready accepts who waits, and deals them out to the loops in turn: they stay on theirs for hours.
func (as *arrivals) Ready(ev reactor.Events) {
	if ev&reactor.Readable == 0 || as.resting {
		return
	}
	for range acceptBudget {
		fd, peer, err := reactor.Accept(as.fd)
		switch {
		case err == nil:
			l := as.lanes[as.turn%len(as.lanes)]
			as.turn++
			if l.loop == as.loop {
				l.open(fd, peer)
			} else if !l.loop.Post(func() { l.open(fd, peer) }) {
				_ = unix.Close(fd)
			}
		case errors.Is(err, reactor.ErrAgain):
			as.reg.Drained(reactor.Readable)
			return
		case reactor.Aborted(err):
		default:
			as.rest(err)
			return
		}
	}
	reactor.SchedYield() // when many come the edges, if they are on this host, have messages of sessions to pass on
	as.reg.Yield()
}

// rest leaves those who wait in the kernel's queue for a moment.
func (as *arrivals) rest(err error) {
	as.backend.log.Warn("cannot accept a connection; trying again", zap.Duration("in", acceptPause), zap.Error(err))
	as.resting = true
	as.loop.AfterFunc(acceptPause, func() {
		as.resting = false
		as.reg.Yield()
	})
}

// Accept returns the next connection that is for net/http.
func (as *arrivals) Accept() (net.Conn, error) {
	for {
		fd, ok := as.handed.Take()
		if !ok {
			return nil, net.ErrClosed
		}
		conn, err := reactor.Attach(fd)
		if err == nil {
			return conn, nil
		}
		as.backend.log.Warn("a connection is lost", zap.Error(err))
	}
}

// Addr is where edges connect.
func (as *arrivals) Addr() net.Addr { return as.addr }

// Close stops to accept, and ends whoever has not become a session; handshakes under way come to their answer. It is called once, while
// the loops run.
func (as *arrivals) Close() error {
	as.cancel()
	stopped := make(chan struct{})
	as.loop.Post(func() {
		as.reg.Unregister()
		_ = unix.Close(as.fd)
		close(stopped)
	})
	<-stopped
	for _, l := range as.lanes { // behind what Ready has posted
		closed := make(chan struct{})
		l.loop.Post(func() {
			l.close()
			close(closed)
		})
		<-closed
	}
	for _, fd := range as.handed.Close() {
		_ = unix.Close(fd)
	}
	return nil
}

func (l *lane) close() {
	l.closed = true
	for a := range l.there {
		switch a.stage {
		case arriving:
			a.late()
		case leaving:
			a.drop()
		}
	}
}

// serve reads the heads that have come, few in a turn, so that sessions have theirs.
func (l *lane) serve() {
	n := min(arrivalsPerTurn, len(l.ready))
	for _, a := range l.ready[:n] {
		a.queued = false
		if a.stage == arriving {
			a.read()
		}
	}
	clear(l.ready[:n])
	if l.ready = l.ready[n:]; len(l.ready) == 0 {
		l.ready = nil
		return
	}
	reactor.SchedYield() // as above
	l.loop.Post(l.serve)
}

// request reads a request's head, which must be whole. What it returns holds none of it.
func (l *lane) request(head []byte) (*http.Request, error) {
	l.src.Reset(head)
	l.br.Reset(&l.src)
	return http.ReadRequest(l.br)
}
