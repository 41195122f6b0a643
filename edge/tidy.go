package edge

import (
	"context"
	"os"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"sync/atomic"
	"time"
)

const (
	tidyAfter = 1000                   // upgrades: some 5 MB of garbage
	tidyCalm  = 250 * time.Millisecond // without one: the burst is over
	tidyRest  = time.Second            // from one to the next, at least

	tidyRoom = 32 << 20 // bytes of garbage that may come before the collector runs, even where less lives than that
	mostRoom = 800      // the same as a percentage of what lives, at most
)

// tidy gives memory back to the system when a burst of upgrades is over. What an upgrade needs is garbage at once, and its session, of some
// 300 bytes, stays for hours: the collector, left alone, would keep the heap at twice what lives, and run again in two minutes at
// the earliest. A collection costs some milliseconds, and a few more for each 10,000 sessions.
//
// Since it does, the collector need not be as eager during a burst as it is by default: an edge's heap is small, and a collection for
// every few megabytes was a tenth of what an upgrade cost. GOGC, where it is set, stands.
type tidy struct {
	upgrades atomic.Uint64
	nudge    chan struct{} // holds one
	percent  int           // the collector's; only run uses it
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
	if os.Getenv("GOGC") == "" {
		t.makeRoom()
		defer debug.SetGCPercent(100)
	}
	for {
		select {
		case <-t.nudge:
		case <-ctx.Done():
			return
		}
		for seen := uint64(0); seen != t.upgrades.Load(); {
			seen = t.upgrades.Load()
			if t.percent > 0 {
				t.makeRoom()
			}
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

// makeRoom has the collector run when tidyRoom of garbage has come, or as much as lives, whichever is more.
func (t *tidy) makeRoom() {
	live := []runtimemetrics.Sample{{Name: "/gc/heap/live:bytes"}}
	runtimemetrics.Read(live)
	percent := int(min(mostRoom, max(100, tidyRoom*100/max(1, live[0].Value.Uint64()))))
	if percent != t.percent {
		t.percent = percent
		debug.SetGCPercent(percent)
	}
}
