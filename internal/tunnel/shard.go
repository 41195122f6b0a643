//go:build unix

package tunnel

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/selvedge/selvedge/internal/reactor"
)

const (
	// idleSteps is into how many sweeps an idle timeout is divided: a tunnel is cut at most one step late.
	idleSteps = 8
	// maxSweep is the longest time between two sweeps.
	maxSweep = 30 * time.Second
	// keepSpare is how many empty backlogs of each kind a shard keeps for the next slow reader: 1 MiB of buffers and 16 pipes.
	keepSpare = 16
)

// shard is what the tunnels of one loop share.
type shard struct {
	relay *Relay
	loop  *reactor.Loop

	// Counters, read by anyone.
	copied, spliced [2]atomic.Uint64 // bytes by the side they came from

	// Owned by the loop.
	oldest, newest *Tunnel // all tunnels by their last activity, as far as the idle timeout needs to know it
	clock          uint32  // counts sweeps
	sweeping       *reactor.Timer
	buffers        []*backlog // empty, in memory
	pipes          []*backlog // empty, with a pipe
	closed         bool

	mu       sync.Mutex
	starting []*Tunnel // admitted and not yet seen by the loop; bounded by Join's callers
}

func newShard(r *Relay, l *reactor.Loop) *shard {
	s := &shard{relay: r, loop: l}
	if r.cfg.IdleTimeout > 0 {
		l.Post(func() { s.sweeping = l.AfterFunc(s.sweepEvery(), s.sweep) }) // here it could fire before it is noted
	}
	return s
}

// admit hands t to the loop. Tunnels that come while the loop is at work share one task.
func (s *shard) admit(t *Tunnel) {
	s.mu.Lock()
	s.starting = append(s.starting, t)
	first := len(s.starting) == 1
	s.mu.Unlock()
	if first && !s.loop.Post(s.start) {
		go s.abandon() // the caller may be the loop that has to end first
	}
}

// start runs the tunnels that have been admitted.
func (s *shard) start() {
	s.mu.Lock()
	starting := s.starting
	s.starting = nil
	s.mu.Unlock()
	for _, t := range starting {
		s.append(t)
		t.open()
		if s.closed {
			t.cut(Shutdown) // it was on its way when Relay.Close looked
		}
	}
}

// close cuts everything, and whatever is still to start.
func (s *shard) close() {
	cut := make(chan struct{})
	s.loop.Post(func() {
		s.closed = true
		for _, t := range s.tunnels() {
			t.cut(Shutdown)
		}
		s.release()
		close(cut)
	})
	select {
	case <-cut:
	case <-s.loop.Done():
		s.abandon()
	}
}

// abandon ends all tunnels when the reactor has been closed before the relay: the loop moves nothing any more.
func (s *shard) abandon() {
	<-s.loop.Done()
	s.mu.Lock() // the state was the loop's; now it is whoever holds the lock's
	defer s.mu.Unlock()
	for _, t := range s.starting {
		s.append(t)
	}
	s.starting, s.closed = nil, true
	for _, t := range s.tunnels() {
		t.finish(Shutdown, nil)
	}
	s.release()
}

// tunnels lists all tunnels, for those who change the list as they go.
func (s *shard) tunnels() []*Tunnel {
	var all []*Tunnel
	for t := s.oldest; t != nil; t = t.next {
		all = append(all, t)
	}
	return all
}

// release gives back what the shard keeps.
func (s *shard) release() {
	if s.sweeping != nil {
		s.sweeping.Stop()
	}
	for _, b := range s.pipes {
		s.closePipe(b)
	}
	s.pipes, s.buffers = nil, nil
}

// sweepEvery is the time between sweeps: a fraction of the idle timeout.
func (s *shard) sweepEvery() time.Duration {
	return min(s.relay.cfg.IdleTimeout/idleSteps, maxSweep)
}

// sweep cuts the tunnels that have been idle. The list is in order, so it looks at those and one more.
func (s *shard) sweep() {
	if s.closed {
		return
	}
	s.clock++
	steps := uint32(s.relay.cfg.IdleTimeout / s.sweepEvery())
	for t := s.oldest; t != nil && s.clock-t.active > steps; t = s.oldest {
		s.touch(t)
		t.cut(IdleTimeout)
	}
	s.sweeping = s.loop.AfterFunc(s.sweepEvery(), s.sweep)
}

// touch notes that t is active. It costs a comparison, and a move once per sweep.
func (s *shard) touch(t *Tunnel) {
	if t.active != s.clock {
		s.unlink(t)
		s.append(t)
	}
}

func (s *shard) append(t *Tunnel) {
	t.active = s.clock
	t.prev, t.next = s.newest, nil
	if s.newest != nil {
		s.newest.next = t
	} else {
		s.oldest = t
	}
	s.newest = t
}

func (s *shard) unlink(t *Tunnel) {
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		s.oldest = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	} else {
		s.newest = t.prev
	}
	t.prev, t.next = nil, nil
}
