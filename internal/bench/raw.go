package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sync/errgroup"

	"github.com/selvedge/selvedge/internal/reactor"
)

// raw is a client's end of one session of [Proxies]: after the 101, bytes without frames. All of it belongs to the holder's loop.
type raw struct {
	holder *holder
	fd     int
	reg    reactor.Registration
	asleep net.Conn // of a session that is only held: TLS

	// Of a load.
	size int             // of a message
	got  int             // bytes of the message that is coming back
	dues []time.Duration // of messages under way, oldest first; bounded by the load's number of messages
	left uint64          // of a stream
}

// exchanges are the key exchanges that clients offer: P-256 alone, as the certificates are, so that all contenders do the same work. Two Go
// programs would choose X25519MLKEM768, which OpenSSL has since 3.5 only.
var exchanges = []tls.CurveID{tls.CurveP256}

// RawArgs says where sessions are opened.
type RawArgs struct {
	Addr, Path  string
	First, Last int  // users
	TLS         bool // sessions that are only held
}

// OpenRaw opens sessions.
func (c *Holder) OpenRaw(args RawArgs, _ *struct{}) error {
	var g errgroup.Group
	g.SetLimit(openWidth)
	for user := args.First; user < args.Last; user++ {
		g.Go(func() error {
			if err := c.holder.openRaw(args, user); err != nil {
				return fmt.Errorf("%s at %s: %w", userName(user), args.Addr, err)
			}
			return nil
		})
	}
	return g.Wait()
}

func (h *holder) openRaw(args RawArgs, user int) error {
	scheme := "ws://"
	dialer := ws.Dialer{Timeout: openTimeout, ReadBufferSize: 1024, WriteBufferSize: 1024, NetDial: withoutProbes}
	if args.TLS {
		scheme = "wss://"
		dialer.TLSConfig = &tls.Config{InsecureSkipVerify: true, CurvePreferences: exchanges} //nolint:gosec // our own certificate
	}
	conn, _, _, err := dialer.Dial(context.Background(), scheme+args.Addr+args.Path+"?user="+userName(user)) // a far end waits for us
	if err != nil {
		return err
	}
	r := &raw{holder: h, fd: -1}
	if args.TLS {
		r.asleep = conn
		return h.do(func() { h.raws = append(h.raws, r) })
	}
	if r.fd, err = reactor.Detach(conn); err != nil {
		conn.Close()
		return err
	}
	refused := error(nil)
	err = h.do(func() {
		if r.reg, refused = h.loop.Register(r.fd, r); refused == nil {
			h.raws = append(h.raws, r)
		}
	})
	return errors.Join(err, refused)
}

// CloseRaw closes all sessions but the first keep.
func (c *Holder) CloseRaw(keep int, _ *struct{}) error {
	return c.holder.do(func() {
		for _, r := range c.holder.raws[keep:] {
			r.close()
		}
		clear(c.holder.raws[keep:])
		c.holder.raws = c.holder.raws[:keep]
	})
}

func (r *raw) close() {
	if r.asleep != nil {
		r.asleep.Close()
	}
	if r.fd >= 0 {
		r.reg.Unregister()
		reactor.Close(r.fd)
	}
	r.fd = -1
}

// LoadArgs is a load on the sessions from First up to Last.
type LoadArgs struct {
	First, Last int
	Size        int           // of a message, bytes
	Rate        int           // messages a second of all together; 0: each session's next message goes when its last has come back
	Messages    int           // at a rate, of all together
	For         time.Duration // without a rate; 0: one message each
	Stream      uint64        // bytes from the far end to the first session; 0: messages
}

// LoadReply is what a load saw.
type LoadReply struct {
	Messages       int
	Took           time.Duration
	P50, P99, P999 time.Duration
	Problem        string // the first
}

// load is one under way. All of it belongs to the loop.
type load struct {
	LoadArgs
	start     time.Duration
	latencies []time.Duration
	busy      int // sessions that wait for something
	problem   string
	done      chan struct{}
}

// loadTimeout is how long a load may take altogether.
const loadTimeout = 60 * time.Second

// Load runs a load and returns when its last message has come back.
func (c *Holder) Load(args LoadArgs, reply *LoadReply) error {
	h := c.holder
	l := &load{LoadArgs: args, start: monotonic(), done: make(chan struct{})}
	err := h.do(func() {
		h.load = l
		switch {
		case l.Stream > 0:
			h.raws[l.First].ask(l.Stream)
		case l.Rate == 0:
			for _, r := range h.raws[l.First:l.Last] {
				r.send(monotonic())
			}
		}
	})
	if err != nil {
		return err
	}
	if args.Rate > 0 {
		// Each message has a time at which it is due, whatever became of those before it, and its latency counts from there.
		for i := range args.Messages {
			due := l.start + time.Duration(i)*time.Second/time.Duration(args.Rate)
			sleepUntil(due)
			h.loop.Post(func() { h.raws[l.First+i%(l.Last-l.First)].send(due) })
		}
	}
	select {
	case <-l.done:
	case <-time.After(loadTimeout):
		return fmt.Errorf("a load is not over after %v", loadTimeout)
	}
	return h.do(func() {
		*reply = LoadReply{Messages: len(l.latencies), Took: monotonic() - l.start, Problem: l.problem,
			P50: quantile(l.latencies, 0.5), P99: quantile(l.latencies, 0.99), P999: quantile(l.latencies, 0.999)}
		h.load = nil
	})
}

// over tells whether sessions of a closed loop send no more.
func (l *load) over() bool {
	return monotonic()-l.start >= l.For
}

// pattern is what messages consist of: a part of it that was lost, repeated or mixed up shows.
var pattern = func() []byte {
	b := make([]byte, 64<<10)
	for i := range b {
		b[i] = byte(i) ^ byte(i>>8*7)
	}
	return b
}()

// send sends a message that was due at a time. What a socket does not take makes a problem: there is little under way at a time.
func (r *raw) send(due time.Duration) {
	l := r.holder.load
	if r.size = l.Size; len(r.dues) == 0 {
		l.busy++
	}
	r.dues = append(r.dues, due)
	if n, err := reactor.Write(r.fd, pattern[:r.size]); n < r.size {
		r.fail(fmt.Sprintf("%d of %d bytes written: %v", n, r.size, err))
	}
}

// ask asks for a stream.
func (r *raw) ask(size uint64) {
	r.left = size
	r.holder.load.busy++
	if _, err := reactor.Write(r.fd, binary.BigEndian.AppendUint64(nil, size)); err != nil {
		r.fail(err.Error())
	}
}

// Ready reads what has come.
func (r *raw) Ready(reactor.Events) {
	for buf := r.holder.loop.Scratch(); r.fd >= 0; {
		n, err := reactor.Read(r.fd, buf)
		switch {
		case errors.Is(err, reactor.ErrAgain):
			r.reg.Drained(reactor.Readable | reactor.Writable)
			return
		case errors.Is(err, io.EOF):
			r.fail("the connection was closed")
		case err != nil:
			r.fail(err.Error())
		case r.left > 0:
			if r.left -= min(r.left, uint64(n)); r.left == 0 {
				r.rest()
			}
		default:
			r.take(buf[:n])
		}
	}
}

// take takes bytes of messages that come back.
func (r *raw) take(data []byte) {
	for len(data) > 0 && r.fd >= 0 {
		n := min(len(data), r.size-r.got)
		if len(r.dues) == 0 || !bytes.Equal(data[:n], pattern[r.got:r.got+n]) {
			r.fail("other bytes came than were sent")
			return
		}
		data = data[n:]
		if r.got += n; r.got < r.size {
			return
		}
		l := r.holder.load
		l.latencies = append(l.latencies, monotonic()-r.dues[0])
		r.dues = r.dues[:copy(r.dues, r.dues[1:])]
		r.got = 0
		switch {
		case l.Rate == 0 && !l.over():
			r.send(monotonic())
			if len(r.dues) == 1 {
				l.busy-- // it has been counted
			}
		case len(r.dues) == 0:
			r.rest()
		}
	}
}

// rest notes that the session waits for nothing.
func (r *raw) rest() {
	l := r.holder.load
	l.busy--
	if l.busy == 0 && (l.Rate == 0 || len(l.latencies) == l.Messages) {
		close(l.done)
	}
}

// fail gives up a session that should have stayed open, and the load.
func (r *raw) fail(why string) {
	r.close()
	if l := r.holder.load; l != nil && l.problem == "" {
		l.problem = why
		close(l.done)
	}
}
