package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selvedge/selvedge/backend/sender"
)

const (
	closedWidth = 64  // pushes under way at once in a closed loop
	pacedWidth  = 256 // the same at a fixed rate; when all are busy the next ones start late, and their latency has it
)

// pushLoad pushes to the users in turn, one session each, and counts what the sender is told.
type pushLoad struct {
	sender *sender.Sender
	phase  uint32
	users  int

	pushed    atomic.Int64
	mu        sync.Mutex
	latencies []time.Duration // from when a push was due until the sender knew; bounded by the number of paced pushes
	failed    error           // the first push that was not delivered to exactly one session
}

// closed pushes for the given time, a worker's next push as soon as its last one is answered. It returns the time it took.
func (l *pushLoad) closed(ctx context.Context, duration time.Duration) (time.Duration, error) {
	var next atomic.Uint32
	start := time.Now()
	var wg sync.WaitGroup
	for range closedWidth {
		wg.Go(func() {
			for time.Since(start) < duration && ctx.Err() == nil && !l.hasFailed() {
				l.push(ctx, stamp{seq: next.Add(1) - 1})
			}
		})
	}
	wg.Wait()
	return time.Since(start), errors.Join(ctx.Err(), l.failed)
}

// paced makes n pushes at a fixed rate per second. Each is due at a time of its own, whatever became of those before it, and
// its latency counts from there: a sender that stalls does not get around the pushes that it holds up.
func (l *pushLoad) paced(ctx context.Context, n, rate int) error {
	pace(n, rate, func(s stamp) bool {
		if ctx.Err() != nil || l.hasFailed() {
			return false
		}
		l.push(ctx, s)
		l.record(monotonic() - s.due)
		return true
	})
	return errors.Join(ctx.Err(), l.failed)
}

// pace calls do with n stamps at their times, rate of them per second, by pacedWidth workers. A false ends it early.
func pace(n, rate int, do func(stamp) bool) {
	due := make(chan stamp, pacedWidth) // full: the workers are behind, and what is late stays due when it was
	var stopped atomic.Bool
	var wg sync.WaitGroup
	for range pacedWidth {
		wg.Go(func() {
			for s := range due {
				if !stopped.Load() && !do(s) {
					stopped.Store(true)
				}
			}
		})
	}
	start := monotonic() + 10*time.Millisecond // the workers have started by then
	for i := 0; i < n && !stopped.Load(); i++ {
		s := stamp{seq: uint32(i), due: start + time.Duration(i)*time.Second/time.Duration(rate)}
		sleepUntil(s.due)
		due <- s
	}
	close(due)
	wg.Wait()
}

// pacingCost is the processor time per push that pace takes for itself, by pacing nothing for half a second.
func pacingCost(rate int) (time.Duration, error) {
	n := max(1, rate/2)
	before, err := cpuTime(os.Getpid())
	if err != nil {
		return 0, err
	}
	pace(n, rate, func(stamp) bool { return true })
	after, err := cpuTime(os.Getpid())
	return (after - before) / time.Duration(n), err
}

// each pushes once to each of the first n users.
func (l *pushLoad) each(ctx context.Context, n int) error {
	var next atomic.Uint32
	var wg sync.WaitGroup
	for range closedWidth {
		wg.Go(func() {
			for seq := next.Add(1) - 1; int(seq) < n && ctx.Err() == nil; seq = next.Add(1) - 1 {
				l.push(ctx, stamp{seq: seq})
			}
		})
	}
	wg.Wait()
	return errors.Join(ctx.Err(), l.failed)
}

func (l *pushLoad) push(ctx context.Context, s stamp) {
	s.phase, s.user = l.phase, s.seq%uint32(l.users)
	result, err := l.sender.Push(ctx, userName(int(s.user)), sender.Message{Data: s.encode(), Binary: true})
	if err == nil && result.Sessions != 1 {
		err = fmt.Errorf("taken by %d sessions instead of 1", result.Sessions)
	}
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.failed == nil {
			l.failed = fmt.Errorf("push %d to %s: %w", s.seq, userName(int(s.user)), err)
		}
		return
	}
	l.pushed.Add(1)
}

func (l *pushLoad) record(latency time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.latencies = append(l.latencies, latency)
}

func (l *pushLoad) hasFailed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed != nil
}
