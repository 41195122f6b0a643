package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/rpc"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/selvedge/selvedge/internal/reactor"
)

const (
	openWidth   = 32               // handshakes of one client process at once
	openTimeout = 20 * time.Second // of one handshake
)

// Clients is the life of a client process: it holds sessions as the parent asks for it over in and out, until in ends.
func Clients(in io.ReadCloser, out io.WriteCloser) error {
	r, err := reactor.New(1)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // returns nil; the process ends with it
	server := rpc.NewServer()
	if err := server.RegisterName("Holder", &Holder{holder: &holder{loop: r.Loop()}}); err != nil {
		return err
	}
	server.ServeConn(pipe{in, out})
	return nil
}

// pipe is a connection made of two.
type pipe struct {
	io.ReadCloser
	out io.WriteCloser
}

func (p pipe) Write(b []byte) (int, error) { return p.out.Write(b) }

func (p pipe) Close() error {
	p.out.Close()
	return p.ReadCloser.Close()
}

// holder holds the sessions of one client process. But for loop, all of it belongs to the loop.
type holder struct {
	loop     *reactor.Loop
	sessions []*session
	raws     []*raw // of [Proxies]
	load     *load  // under way
	tally    Tally
}

// do runs f on the loop and waits for it.
func (h *holder) do(f func()) error {
	done := make(chan struct{})
	if !h.loop.Post(func() { defer close(done); f() }) {
		return reactor.ErrClosed
	}
	select {
	case <-done:
		return nil
	case <-h.loop.Done():
		return reactor.ErrClosed
	}
}

// Holder is what the parent may ask of a client process. Its methods have the shape that net/rpc wants.
type Holder struct{ holder *holder }

// OpenArgs names users and where each connects.
type OpenArgs struct {
	Users []int
	Addrs []string // one for each user
	Path  string
	// Direct sessions go to a backend and say themselves, in the header that an edge would set, who they are.
	Direct bool
}

// Open opens a session for each user. The first that fails is the error; the others stay open.
func (c *Holder) Open(args OpenArgs, _ *struct{}) error {
	var g errgroup.Group
	g.SetLimit(openWidth)
	for i, user := range args.Users {
		g.Go(func() error {
			if err := c.holder.open(args.Addrs[i], args.Path, user, args.Direct); err != nil {
				return fmt.Errorf("%s at %s: %w", userName(user), args.Addrs[i], err)
			}
			return nil
		})
	}
	return g.Wait()
}

// withoutProbes dials without TCP's keepalive: of tens of thousands of clients on one host it is a load of its own, and loses probes, and with
// them clients, in the queue of the loopback device.
func withoutProbes(ctx context.Context, network, addr string) (net.Conn, error) {
	return (&net.Dialer{KeepAlive: -1}).DialContext(ctx, network, addr)
}

func (h *holder) open(addr, path string, user int, direct bool) error {
	dialer := ws.Dialer{Timeout: openTimeout, ReadBufferSize: 1024, WriteBufferSize: 1024, NetDial: withoutProbes}
	url := "ws://" + addr + path
	if direct {
		dialer.Header = ws.HandshakeHeaderHTTP(http.Header{"X-Selvedge-User": {userName(user)}})
	} else {
		url += "?user=" + userName(user)
	}
	conn, buffered, _, err := dialer.Dial(context.Background(), url)
	if err != nil {
		return err
	}
	var early []byte
	if buffered != nil {
		early, _ = buffered.Peek(buffered.Buffered()) // what is buffered is there
	}
	fd, err := reactor.Detach(conn)
	if err != nil {
		conn.Close()
		return err
	}
	refused := error(nil)
	err = h.do(func() {
		s := &session{holder: h, user: uint32(user), fd: fd}
		h.tally.Open++
		if s.reg, refused = h.loop.Register(fd, s); refused != nil {
			s.close()
			return
		}
		h.sessions = append(h.sessions, s)
		s.feed(early)
	})
	if err != nil {
		_ = unix.Close(fd)
		return err
	}
	return refused
}

// Begin begins a phase: what the clients have seen so far is forgotten, but for the sessions that are open.
func (c *Holder) Begin(phase uint32, _ *struct{}) error {
	return c.holder.do(func() { c.holder.tally.begin(phase) })
}

// Echo begins a phase, in which each session sends one message, which should come back.
func (c *Holder) Echo(phase uint32, _ *struct{}) error {
	return c.holder.do(func() {
		h := c.holder
		h.tally.begin(phase)
		for i, s := range h.sessions {
			s.send(stamp{phase: phase, seq: uint32(i), user: s.user})
		}
	})
}

// Tally returns what was seen in the phase.
func (c *Holder) Tally(_ struct{}, t *Tally) error {
	return c.holder.do(func() {
		*t = c.holder.tally
		t.Latencies = append([]time.Duration(nil), t.Latencies...) // it is read while the loop goes on
	})
}

// Count returns how many messages have come in the phase.
func (c *Holder) Count(_ struct{}, n *int) error {
	return c.holder.do(func() { *n = c.holder.tally.Messages })
}

// CloseAll closes all sessions, without a close frame.
func (c *Holder) CloseAll(_ struct{}, _ *struct{}) error {
	return c.holder.do(func() {
		for _, s := range c.holder.sessions {
			s.close()
		}
		c.holder.sessions = nil
	})
}
