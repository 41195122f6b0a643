package pushlink

import "time"

const (
	wayWindow = 30 * time.Second // for which the fastest call counts: two clocks may run apart by some milliseconds meanwhile
	wayIdle   = 5 * time.Minute  // after which nothing is known any more
)

// way is a stream's way from the sender to this process. Their clocks have nothing to do with each other, but the difference between them is
// steady: what a call took longer than the fastest one of late is how long it lay somewhere, as in the buffers of a process that stood still.
type way struct {
	began           time.Time        // zero of our clock
	now             func() time.Time // for tests
	fastest, before time.Duration    // our clock less the sender's, the least of this window and of the one before
	since, last     time.Time        // when the window began, and when the last call came
}

func newWay() *way { return &way{began: time.Now(), now: time.Now} }

// age is how long a call that left at sentMs of the sender's clock, and comes now, lay on its way; 0 where that cannot be told.
func (w *way) age(sentMs uint64) time.Duration {
	now := w.now()
	took := now.Sub(w.began) - time.Duration(sentMs)*time.Millisecond
	switch {
	case w.last.IsZero() || now.Sub(w.last) > wayIdle:
		w.fastest, w.before, w.since = took, took, now
	case now.Sub(w.since) > wayWindow:
		w.before, w.fastest, w.since = w.fastest, took, now
	}
	w.last = now
	w.fastest = min(w.fastest, took)
	return max(took-min(w.fastest, w.before), 0)
}
