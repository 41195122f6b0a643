package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	closedWidth = 64  // pushes under way at once in a closed loop
	pacedWidth  = 256 // the same at a fixed rate; a push that comes behind one that is under way for so many starts late, and its latency has it
)

// pushLoad pushes to the users in turn, one session each, and counts what the publisher is told.
type pushLoad struct {
	publisher publisher
	phase     uint32
	users     int

	pushed    atomic.Int64
	mu        sync.Mutex
	latencies []time.Duration // from when a push was due until the publisher knew; bounded by the number of paced pushes
	failed    error           // the first push that was not taken
}

// closed pushes for the given time, a worker's next push as soon as its last one is acknowledged.
func (l *pushLoad) closed(ctx context.Context, duration time.Duration) error {
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
	return errors.Join(ctx.Err(), l.failed)
}

// paced makes n pushes at a fixed rate per second. Each is due at a time of its own, whatever became of those before it, and
// its latency counts from there: a publisher that stalls does not get around the pushes that it holds up.
func (l *pushLoad) paced(ctx context.Context, n, rate int) error {
	err := pace(n, rate, func(s stamp) bool {
		if ctx.Err() != nil || l.hasFailed() {
			return false
		}
		l.push(ctx, s)
		l.record(monotonic() - s.due)
		return true
	})
	return errors.Join(err, ctx.Err(), l.failed)
}

// pace calls do with n stamps at their times, rate of them per second, by pacedWidth workers that take turns. Each has a timer of its own, so that
// at its time it goes on at once and nobody else has to be woken. One that is late for its next turn starts that late, and what is late stays
// due when it was. A false ends it early.
func pace(n, rate int, do func(stamp) bool) error {
	var stopped atomic.Bool
	var group errgroup.Group
	between := func(pushes int) time.Duration { return time.Duration(pushes) * time.Second / time.Duration(rate) }
	start := monotonic() + 20*time.Millisecond // the workers have started by then
	for worker := range min(n, pacedWidth) {
		group.Go(func() error {
			timer, err := newTicker(start+between(worker), between(pacedWidth))
			if err != nil {
				return err
			}
			defer timer.stop()
			for i := worker; i < n && !stopped.Load(); i += pacedWidth {
				if err := timer.wait(); err != nil {
					return err
				}
				if !do(stamp{seq: uint32(i), due: start + between(i)}) {
					stopped.Store(true)
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// pacingCost is the processor time per push that pace takes for itself, by pacing nothing for a second.
func pacingCost(rate int) (time.Duration, error) {
	n := max(1, rate)
	before, err := cpuTime(os.Getpid())
	if err != nil {
		return 0, err
	}
	if err := pace(n, rate, func(stamp) bool { return true }); err != nil {
		return 0, err
	}
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
	if err := l.publisher.push(ctx, userName(int(s.user)), s.encode()); err != nil {
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
