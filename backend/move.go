package backend

import (
	"context"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/selvedge/selvedge/hashring"
	"github.com/selvedge/selvedge/internal/homing"
)

const (
	moveTick      = 100 * time.Millisecond // how often sessions are closed during a move
	searchEvery   = time.Second            // how often misplaced sessions are looked for while some are left
	rememberMoves = 1 << 16                // users whose last move is remembered; the oldest are forgotten
	moveAgain     = 10 * time.Second       // before a user is moved a second time; doubled for each time
	moveAgainMost = 10 * time.Minute
)

// moveRecord remembers that a user was moved, so that a client which keeps coming back, since its edge cannot reach the home, is
// not sent away again and again.
type moveRecord struct {
	at    time.Time
	times int
}

// tooSoon tells whether a session that opened at since came back from the user's last move and must be left alone for now.
func (r moveRecord) tooSoon(since, now time.Time) bool {
	if r.times == 0 || !since.After(r.at) {
		return false // never moved, or a device that has not been moved with the others yet
	}
	return now.Sub(r.at) < min(moveAgain<<min(r.times-1, 10), moveAgainMost)
}

// next is the record after moving a session that opened at since. The user's devices move together: only one that came back counts
// as another time, and after a long rest the count begins anew.
func (r moveRecord) next(since, now time.Time) moveRecord {
	switch {
	case r.times == 0 || now.Sub(r.at) > 2*moveAgainMost:
		return moveRecord{now, 1}
	case since.After(r.at):
		return moveRecord{now, r.times + 1}
	default:
		return r
	}
}

// move closes sessions whose user has another home now, until ctx ends, at the pace that is set.
func (b *Backend) move(ctx context.Context) {
	for {
		select {
		case <-b.nudge:
		case <-ctx.Done():
			return
		}
		if b.cfg.OnMove != MoveKeep && !b.draining.Load() {
			b.moveMisplaced(ctx)
		}
	}
}

// moveMisplaced returns when nothing is misplaced any more. What must not move yet is looked at again every second: the ring was
// not still for long enough, the new home has not acknowledged the user, or the client has just come back from there.
func (b *Backend) moveMisplaced(ctx context.Context) {
	tick := time.NewTicker(moveTick)
	defer tick.Stop()
	var (
		ring            *hashring.Ring
		queue           []*Session
		searched        time.Time
		rate, allowance float64
	)
	defer b.misplaced.Store(0)
	counted := time.Now()
	for !b.draining.Load() { // which sends all sessions away itself
		now := time.Now()
		if current := b.home.ring(); current != ring || now.Sub(searched) > searchEvery {
			if queue = b.findMisplaced(current); len(queue) == 0 {
				return
			}
			if current != ring { // the pace of a change is set by all that it misplaces, not by what is left
				rate = b.cfg.Move.rate(len(queue), b.table.len())
				b.log.Info("sessions are misplaced", zap.Int("sessions", len(queue)), zap.Float64("moves_per_second", rate))
			}
			ring, searched = current, now
		}
		allowance = min(allowance+rate*now.Sub(counted).Seconds(), max(1, rate)) // by the clock
		counted = now
		queue = b.closeSome(queue, &allowance)
		b.misplaced.Store(int64(len(queue)))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// findMisplaced lists the sessions that are to go under ring, in random order.
func (b *Backend) findMisplaced(ring *hashring.Ring) []*Session {
	if ring.Len() == 0 {
		return nil // nobody to move them to
	}
	changed := b.home.ringSince()
	var queue []*Session
	for _, s := range b.table.all() {
		if ring.OwnerOfHash(uint64(s.hash)) != b.cfg.ID || b.cfg.OnMove == MoveAll && s.since.Before(changed) {
			queue = append(queue, s)
		}
	}
	rand.Shuffle(len(queue), func(i, j int) { queue[i], queue[j] = queue[j], queue[i] })
	return queue
}

// closeSome closes as many of queue as may go and allowance permits, and returns those left.
func (b *Backend) closeSome(queue []*Session, allowance *float64) (left []*Session) {
	now := time.Now()
	for i, s := range queue {
		if *allowance < 1 {
			return append(left, queue[i:]...)
		}
		if s.isClosing() {
			continue
		}
		last, _ := b.moved.Get(s.user)
		if s.strayed && now.Sub(s.since) < moveAgain || last.tooSoon(s.since, now) || !b.home.mayMove(s.hash, b.cfg.OnMove == MoveAll) {
			left = append(left, s)
			continue
		}
		*allowance--
		if s.beginClose(Moved, 0, "") {
			b.metrics.moves.Inc()
			b.moved.Add(s.user, last.next(s.since, now))
		}
	}
	return left
}

// mayMove tells whether sessions of u may be sent to the user's home now: it is known to expect them. With all, a user whose home is
// here may go, too, and comes back.
func (h *home) mayMove(u homing.User, all bool) (may bool) {
	h.do(func(n *homing.Node, now homing.Instant) {
		may = n.MayMove(now, u) || all && n.Ring().OwnerOfHash(uint64(u)) == h.b.cfg.ID
	})
	return may
}

// ring is the one that this member decides by.
func (h *home) ring() (ring *hashring.Ring) {
	h.do(func(n *homing.Node, _ homing.Instant) { ring = n.Ring() })
	return ring
}

// ringSince is when it changed last.
func (h *home) ringSince() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ringAt
}

// rate is how many of sessions are closed a second when moving of them must go: the slower of the two bounds, at least one.
func (p Pace) rate(moving, sessions int) float64 {
	return max(1, min(float64(moving)/p.Spread.Seconds(), p.MaxPerSecond*float64(sessions)))
}

// drainRate is rate, or as much more as it takes to be done before timeout: an operator who gives less time wants that.
func (p Pace) drainRate(sessions int, timeout time.Duration) float64 {
	return max(p.rate(sessions, sessions), float64(sessions)/(drainWithin*timeout.Seconds()))
}
