//go:build unix

package tunnel

import (
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/selvedge/selvedge/internal/reactor"
)

const (
	// messageBuffer is what a waiting goroutine holds, in bytes.
	messageBuffer = 2 << 10
	// bulkBuffer is what it borrows while reads fill what it has.
	bulkBuffer = 32 << 10
)

var bulkBuffers = sync.Pool{New: func() any { return new([bulkBuffer]byte) }}

// pump is a tunnel between connections of which at least one lives in user space: two goroutines, one for each direction. A
// Write that blocks is the backpressure.
type pump struct {
	// Static.
	relay  *Relay
	tunnel *Tunnel
	conns  [2]net.Conn // by side
	early  [2][]byte   // each is let go by the goroutine that writes it

	moved [2]atomic.Int64 // by the side the bytes come from
	last  atomic.Int64    // last activity, nanoseconds since born
	born  time.Time

	mu      sync.Mutex
	state   state
	reason  Reason
	err     error
	over    bool // one stream has ended, and reason says which
	running int  // goroutines
	linger  *reactor.Timer
	idle    *reactor.Timer
}

func newPump(r *Relay, t *Tunnel, c, b End) *pump {
	return &pump{
		relay: r, tunnel: t, born: time.Now(), running: 2,
		conns: [2]net.Conn{client: c.Conn, backend: b.Conn},
		early: [2][]byte{client: c.Early, backend: b.Early},
	}
}

func (p *pump) start() {
	for _, c := range p.conns {
		if sc, ok := bottom(c).(syscall.Conn); ok {
			if raw, err := sc.SyscallConn(); err == nil {
				_ = raw.Control(func(fd uintptr) { setOptions(int(fd), &p.relay.cfg) }) // a closed one says so when read
			}
		}
	}
	if p.relay.cfg.IdleTimeout > 0 {
		p.watchIdle(p.relay.cfg.IdleTimeout)
	}
	go p.run(client)
	go p.run(backend)
}

// run is the life of one direction: bytes until the end, the end passed on, and after a cut whatever still comes, unread by
// anyone.
func (p *pump) run(from side) {
	src, dst := p.conns[from], p.conns[from.other()]
	broken, err := p.stream(from, src, dst)
	switch {
	case err == nil:
		p.ended(from)
		p.closeWrite(dst)
	case p.is(cutting):
		p.closeWrite(dst)
		_ = src.SetReadDeadline(time.Time{}) // the cut had set it to get us here
		_, _ = io.Copy(io.Discard, src)
	default:
		p.fail(broken, err)
	}
	p.exit()
}

// stream moves bytes until the source's stream ends, or until an error, which comes with the side it is of.
func (p *pump) stream(from side, src, dst net.Conn) (side, error) {
	early := p.early[from]
	p.early[from] = nil
	if len(early) > 0 {
		if err := p.pass(from, dst, early); err != nil {
			return from.other(), err
		}
	}
	small := make([]byte, messageBuffer)
	for buf := small; ; {
		n, err := src.Read(buf)
		if n > 0 {
			if err := p.pass(from, dst, buf[:n]); err != nil {
				return from.other(), err
			}
		}
		switch {
		case err == io.EOF:
			return from, nil
		case err != nil:
			return from, err
		case n == len(buf) && len(buf) == messageBuffer:
			bulk := bulkBuffers.Get().(*[bulkBuffer]byte)
			side, err := p.bulk(from, src, dst, bulk[:])
			bulkBuffers.Put(bulk)
			if err != nil {
				if err == io.EOF {
					return from, nil
				}
				return side, err
			}
		}
	}
}

// bulk moves bytes through a borrowed buffer while they come in quantity. A nil error means that they do not any more.
func (p *pump) bulk(from side, src, dst net.Conn, buf []byte) (side, error) {
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if err := p.pass(from, dst, buf[:n]); err != nil {
				return from.other(), err
			}
		}
		if err != nil || n < messageBuffer {
			return from, err
		}
	}
}

// pass writes all of b and counts it.
func (p *pump) pass(from side, dst net.Conn, b []byte) error {
	n, err := dst.Write(b)
	p.moved[from].Add(int64(n))
	p.relay.copied[from].Add(uint64(n))
	if p.relay.cfg.IdleTimeout > 0 {
		p.last.Store(int64(time.Since(p.born)))
	}
	return err
}

// closeWrite passes an end of stream on. What knows no half-close (net.Pipe) can only be closed, which ends the other
// direction too.
func (p *pump) closeWrite(c net.Conn) {
	if cw, ok := c.(interface{ CloseWrite() error }); ok {
		_ = cw.CloseWrite() // an error here is found by the goroutine that reads c
		return
	}
	p.mu.Lock()
	p.cutLocked(p.reason)
	p.mu.Unlock()
	_ = c.Close()
}

func (p *pump) is(s state) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state == s
}

// ended notes whose stream ended first.
func (p *pump) ended(from side) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == moving && !p.over {
		p.over, p.reason = true, ClientClosed+Reason(from)
	}
}

// cut stops both reads; the goroutines do the rest, and the timer is for peers that do not play along.
func (p *pump) cut(reason Reason) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cutLocked(reason)
}

func (p *pump) cutLocked(reason Reason) {
	if p.state != moving {
		return
	}
	p.state, p.reason = cutting, reason
	p.linger = p.relay.cfg.Reactor.Loop().AfterFunc(lingerTime, p.closeWires)
	for _, c := range p.conns {
		_ = c.SetReadDeadline(time.Unix(1, 0)) // fails when closed, which ends the read too
	}
}

// fail records why the tunnel is broken and resets both connections, which ends the other goroutine.
func (p *pump) fail(broken side, err error) {
	p.mu.Lock()
	if p.state != moving {
		p.mu.Unlock()
		return
	}
	p.state, p.reason = closed, reasonOf(broken, err)
	p.err = fmt.Errorf("tunnel: %v: %w", broken, err)
	p.mu.Unlock()
	for _, c := range p.conns {
		if tc, ok := bottom(c).(interface{ SetLinger(int) error }); ok {
			_ = tc.SetLinger(0)
		}
	}
	p.closeWires()
}

// closeWires closes what is under TLS: closing TLS itself would wait to say goodbye.
func (p *pump) closeWires() {
	for _, c := range p.conns {
		_ = bottom(c).Close()
	}
}

// exit counts a goroutine out. The last one closes up and tells the owner.
func (p *pump) exit() {
	p.mu.Lock()
	p.running--
	last := p.running == 0
	if last {
		p.state = closed
		for _, timer := range []*reactor.Timer{p.linger, p.idle} {
			if timer != nil {
				timer.Stop()
			}
		}
	}
	p.mu.Unlock()
	if !last {
		return
	}
	for _, c := range p.conns {
		_ = c.Close()
	}
	if p.tunnel.onClose != nil {
		p.tunnel.onClose(Summary{Reason: p.reason, Err: p.err, ToBackend: p.moved[client].Load(), ToClient: p.moved[backend].Load()})
	}
	p.relay.leave(p.tunnel)
}

// watchIdle looks again after d.
func (p *pump) watchIdle(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state != moving {
		return
	}
	p.idle = p.relay.cfg.Reactor.Loop().AfterFunc(d, func() {
		quiet := time.Since(p.born) - time.Duration(p.last.Load())
		if left := p.relay.cfg.IdleTimeout - quiet; left > 0 {
			p.watchIdle(left)
			return
		}
		p.cut(IdleTimeout)
	})
}

// bottom is the connection under c that has no other under it: the TCP connection under TLS.
func bottom(c net.Conn) net.Conn {
	for {
		over, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return c
		}
		c = over.NetConn()
	}
}
