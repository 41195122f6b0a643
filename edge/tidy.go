package edge

import (
	"context"
	"runtime/debug"
	"sync/atomic"
	"time"
)

const (
	tidyAfter = 1000                   // upgrades: some 5 MB of garbage
	tidyCalm  = 250 * time.Millisecond // without one: the burst is over
	tidyRest  = time.Second            // from one to the next, at least
)

// tidy gives memory back to the system when a burst of upgrades is over. What an upgrade needs is garbage at once, and its session, of some
// 300 bytes, stays for hours: the collector, left alone, would keep the heap at twice what lives, and run again in two minutes at
// the earliest. A collection costs some milliseconds, and a few more for each 10,000 sessions.
type tidy struct {
	upgrades atomic.Uint64
	nudge    chan struct{} // holds one
}

func newTidy() *tidy { return &tidy{nudge: make(chan struct{}, 1)} }

// upgraded counts one.
func (t *tidy) upgraded() {
	if t.upgrades.Add(1)%tidyAfter == 0 {
		select {
		case t.nudge <- struct{}{}:
		default: // it waits for calm already
		}
	}
}

// run waits for bursts, and for their ends, until ctx ends.
func (t *tidy) run(ctx context.Context) {
	wait := func(d time.Duration) bool {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for {
		select {
		case <-t.nudge:
		case <-ctx.Done():
			return
		}
		for seen := uint64(0); seen != t.upgrades.Load(); {
			seen = t.upgrades.Load()
			if !wait(tidyCalm) {
				return
			}
		}
		debug.FreeOSMemory()
		if !wait(tidyRest) {
			return
		}
	}
}
