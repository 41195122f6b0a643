package backend

import (
	"sync"
	"time"

	"github.com/selvedge/selvedge/internal/homing"
)

// ageWindow is how long the fastest way from a caller counts: its clock and ours may run apart by some milliseconds meanwhile.
const ageWindow = 30 * time.Second

const (
	mostWays  = 1024      // members that are remembered; beyond, those not heard of for forgetWay are forgotten, or all
	forgetWay = time.Hour // a member that polls every second begins a window far more often
)

// ages tells how long requests were on their way. A request that was cut off, or that waited for a process which stood still, comes
// out of the kernel's buffers as if it were new; what is delivered then has been delivered elsewhere, and read. Clocks of two hosts
// have nothing to do with each other, but the difference between them is steady: what a request took longer than the fastest one
// of late is its age. Polls see to it that there is one every second.
type ages struct {
	mu  sync.Mutex
	way map[string]*way // by member
}

// way is from one process to this one.
type way struct {
	incarnation     uint64
	fastest, before time.Duration  // our clock at receipt less the caller's at sending, the least of this window and of the one before
	since           homing.Instant // when this window began
}

// of returns the age of a request that from sent at sentMs of its clock, 0 where it is not known, and that comes now.
func (a *ages) of(from homing.Process, sentMs uint64, now homing.Instant) time.Duration {
	if sentMs == 0 {
		return 0 // an earlier release
	}
	took := time.Duration(now) - time.Duration(sentMs)*time.Millisecond
	a.mu.Lock()
	defer a.mu.Unlock()
	w := a.way[from.Member]
	switch {
	case w == nil || w.incarnation < from.Incarnation:
		if a.way == nil {
			a.way = make(map[string]*way)
		}
		if len(a.way) >= mostWays {
			a.forget(now)
		}
		w = &way{from.Incarnation, took, took, now}
		a.way[from.Member] = w
	case w.incarnation > from.Incarnation:
		return 0 // of one that has ended; it is refused anyway
	case time.Duration(now-w.since) > ageWindow:
		w.before, w.fastest, w.since = w.fastest, took, now
	}
	w.fastest = min(w.fastest, took)
	return max(took-min(w.fastest, w.before), 0)
}

func (a *ages) forget(now homing.Instant) {
	for member, w := range a.way {
		if time.Duration(now-w.since) > forgetWay {
			delete(a.way, member)
		}
	}
	if len(a.way) >= mostWays {
		clear(a.way)
	}
}
