package backend

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// delivery is one message on its way to the sessions of one user in this process. It settles session by session. A repeat of
// the message joins it: sessions that were asked before are not asked again, ones that opened since are.
type delivery struct {
	mu      sync.Mutex
	asked   []string      // ids of the sessions it was given to
	took    []string      // of those, the ones whose bytes are in the kernel
	dropped int           // of those, the ones that stay open and will never get it: their queues were full
	left    int           // sessions that have neither taken it nor closed
	settled chan struct{} // closed when left becomes 0; nil while nobody has waited for that
	room    [1]string     // of asked and of took, where that one session is all of both: nearly always
}

func newDelivery() *delivery { return new(delivery) }

// isBusy tells whether some session has still to take it. A message that waits for a slow client must stay known, or its next
// repeat would be queued behind it.
func (d *delivery) isBusy() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.left > 0
}

// claim returns those of sessions that were not asked before, in a slice that is not to be changed; the caller gives the message to each
// and settles each.
func (d *delivery) claim(sessions []*Session, except string) []*Session {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.asked == nil {
		d.asked, d.took = d.room[:0], d.room[:0]
	}
	fresh := sessions
	if len(d.asked) > 0 || except != "" {
		fresh = d.unasked(sessions, except)
	}
	d.asked, d.took = slices.Grow(d.asked, len(fresh)), slices.Grow(d.took, len(fresh))
	for _, s := range fresh {
		d.asked = append(d.asked, s.id)
	}
	d.left += len(fresh)
	return fresh
}

func (d *delivery) unasked(sessions []*Session, except string) (fresh []*Session) {
	asked := isIn(d.asked, len(sessions))
	for _, s := range sessions {
		if s.id != except && !asked(s.id) {
			fresh = append(fresh, s)
		}
	}
	return fresh
}

// isIn returns a test for membership in ids as they are now: for a few look-ups by searching, for many, as in a repeated
// broadcast, by a map.
func isIn(ids []string, lookups int) func(id string) bool {
	if len(ids)*lookups < 1024 {
		return func(id string) bool { return slices.Contains(ids, id) }
	}
	set := make(map[string]struct{}, len(ids))
	for _, id := range ids {
		set[id] = struct{}{}
	}
	return func(id string) bool { _, in := set[id]; return in }
}

// settle is called once for each session: it took the message, or it closed first.
func (d *delivery) settle(session string, took bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if took {
		d.took = append(d.took, session)
	}
	if d.left--; d.left == 0 && d.settled != nil {
		close(d.settled)
		d.settled = nil
	}
}

// drop is called in place of settle for a session that gave the message up for newer ones.
func (d *delivery) drop(session string) {
	d.mu.Lock()
	d.dropped++
	d.mu.Unlock()
	d.settle(session, false)
}

// lost is how many open sessions will never get the message.
func (d *delivery) lost() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dropped
}

// untilSettled is closed when left is 0 for the first time from now on; mu is held, and left is not 0.
func (d *delivery) untilSettled() <-chan struct{} {
	if d.settled == nil {
		d.settled = make(chan struct{})
	}
	return d.settled
}

// wait returns the sessions that took the message, in a slice that is not to be changed, and how many are undecided when ctx ended first.
func (d *delivery) wait(ctx context.Context) (took []string, undecided int) {
	d.mu.Lock()
	if d.left == 0 { // nearly always
		defer d.mu.Unlock()
		return slices.Clip(d.took), 0 // which is only ever appended to
	}
	settled := d.untilSettled()
	d.mu.Unlock()
	select {
	case <-settled:
	case <-ctx.Done():
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-settled: // what a later repeat gave to newer sessions is for that one to wait for; and with both ready, this counts
		return slices.Clip(d.took), 0
	default:
		return slices.Clip(d.took), d.left
	}
}

// outcome waits until each session has taken the message or has ended, or ctx has. It returns the ids of those that took it.
func (d *delivery) outcome(ctx context.Context) ([]string, error) {
	took, undecided := d.wait(ctx)
	if undecided > 0 {
		return took, fmt.Errorf("%d sessions have not taken it yet: %w", undecided, ErrUnsettled)
	}
	if n := d.lost(); n > 0 { // neither delivered nor offline
		return took, fmt.Errorf("%d slow sessions have dropped it for newer messages: %w", n, ErrOverloaded)
	}
	return took, nil
}
