package backend

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/selvedge/selvedge/internal/discovery"
)

// ErrDrainTimeout is returned by Run when sessions were left at the end of Config.DrainTimeout; they were closed with 1001.
var ErrDrainTimeout = errors.New("drain timed out with sessions left")

const (
	moveTick      = 100 * time.Millisecond // how often sessions are closed during a move
	confirmEvery  = time.Second            // how often the new homes are asked whether they are there and agree
	rememberMoves = 1 << 16                // users whose last move is remembered; the oldest are forgotten
	moveAgain     = 10 * time.Second       // before a user is moved a second time; doubled for each time
	moveAgainMost = 10 * time.Minute
	drainSeen     = 3 * time.Second // for a drain to show in this member's own view
	drainWithin   = 0.5             // of DrainTimeout, all close frames are sent; the rest is for clients to answer them

	handlerTimeout = 2 * time.Second // for the service's handlers to return once all sessions are closed
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

// move closes sessions whose user has another home now, until ctx ends. It waits until the ring has been still for a moment,
// closes only what the new home has confirmed, and keeps the pace.
func (b *Backend) move(ctx context.Context) {
	for {
		select {
		case <-b.nudge:
		case <-ctx.Done():
			return
		}
		if b.cfg.OnMove == MoveKeep {
			continue
		}
		for !b.settled(ctx) { // changed again meanwhile
			if ctx.Err() != nil {
				return
			}
		}
		b.moveMisplaced(ctx)
	}
}

// settled waits until the members have not changed for Pace.Settle; false: they did, or ctx ended.
func (b *Backend) settled(ctx context.Context) bool {
	wait := time.Until(time.Unix(0, b.changedAt.Load()).Add(b.cfg.Move.Settle))
	if wait <= 0 {
		return true
	}
	pause := time.NewTimer(wait)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
	}
	return false
}

// moveMisplaced closes what is misplaced under the ring in force, and returns when nothing is left or the ring changed.
func (b *Backend) moveMisplaced(ctx context.Context) {
	snapshot := b.view.Snapshot()
	queue := b.findMisplaced(snapshot)
	if len(queue) == 0 {
		return
	}
	rate := b.cfg.Move.rate(len(queue), b.table.len())
	b.log.Info("sessions are misplaced", zap.Int("sessions", len(queue)), zap.Float64("moves_per_second", rate))
	tick := time.NewTicker(moveTick)
	defer tick.Stop()
	confirmed, confirmedAt := b.confirm(ctx, snapshot, queue), time.Now()
	var allowance float64
	counted := time.Now()
	for {
		now := time.Now()
		allowance = min(allowance+rate*now.Sub(counted).Seconds(), max(1, rate)) // by the clock: confirming takes time, too
		counted = now
		queue = b.closeSome(queue, snapshot, confirmed, &allowance)
		if time.Since(confirmedAt) > confirmEvery {
			queue = b.findMisplaced(snapshot) // with those that came since
			confirmed, confirmedAt = b.confirm(ctx, snapshot, queue), time.Now()
		}
		b.misplaced.Store(int64(len(queue)))
		if len(queue) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if b.view.Snapshot().Ring != snapshot.Ring {
			b.wakeMover()
			return
		}
	}
}

// findMisplaced lists the sessions to move, in random order, and counts them for homing.
func (b *Backend) findMisplaced(snapshot *discovery.Snapshot) []*Session {
	if snapshot.Ring.Len() == 0 {
		return nil // nobody to move them to
	}
	var queue []*Session
	for _, s := range b.table.all() {
		if snapshot.Ring.Owner(s.user) != b.cfg.ID {
			queue = append(queue, s)
		}
	}
	b.misplaced.Store(int64(len(queue)))
	rand.Shuffle(len(queue), func(i, j int) { queue[i], queue[j] = queue[j], queue[i] })
	return queue
}

// confirm asks the homes of queue whether they are up and decide by the same ring.
func (b *Backend) confirm(ctx context.Context, snapshot *discovery.Snapshot, queue []*Session) map[string]bool {
	confirmed := make(map[string]bool)
	for _, s := range queue {
		confirmed[snapshot.Ring.Owner(s.user)] = false
	}
	ctx, cancel := context.WithTimeout(ctx, confirmEvery)
	defer cancel()
	homes := slices.Collect(maps.Keys(confirmed))
	agrees := make([]bool, len(homes))
	each(len(homes), len(homes), func(i int) { // at once: one that hangs must not use up the others' time
		if m, known := snapshot.Member(homes[i]); known && m.RPCAddr == "" {
			agrees[i] = true // it takes no part in this; edges route to it
			return
		}
		callee, err := b.peers.hello(ctx, homes[i])
		agrees[i] = err == nil && callee.GetRingDigest() == snapshot.Ring.Digest()
	})
	for i, home := range homes {
		confirmed[home] = agrees[i]
	}
	return confirmed
}

// closeSome closes as many of queue as allowance permits, and returns those left.
func (b *Backend) closeSome(queue []*Session, snapshot *discovery.Snapshot, confirmed map[string]bool, allowance *float64) (left []*Session) {
	now := time.Now()
	for _, s := range queue {
		if s.isClosing() {
			continue
		}
		last, _ := b.moved.Get(s.user)
		if *allowance < 1 || last.tooSoon(s.since, now) || !confirmed[snapshot.Ring.Owner(s.user)] {
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

// rate is how many of sessions are closed a second when moving of them must go: the slower of the two bounds, at least one.
func (p Pace) rate(moving, sessions int) float64 {
	return max(1, min(float64(moving)/p.Spread.Seconds(), p.MaxPerSecond*float64(sessions)))
}

// drainRate is rate, or as much more as it takes to be done before timeout: an operator who gives less time wants that.
func (p Pace) drainRate(sessions int, timeout time.Duration) float64 {
	return max(p.rate(sessions, sessions), float64(sessions)/(drainWithin*timeout.Seconds()))
}

// drain leaves the ring and sends the sessions away. It returns nil when none is left.
func (b *Backend) drain(self chan<- discovery.Member) error {
	b.draining.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), b.cfg.DrainTimeout)
	defer cancel()
	b.log.Info("draining", zap.Int("sessions", b.table.len()), zap.Duration("at_most", b.cfg.DrainTimeout))
	self <- b.member(discovery.Draining)
	b.awaitLeft(ctx)

	rate := b.cfg.Move.drainRate(b.table.len(), b.cfg.DrainTimeout)
	tick := time.NewTicker(moveTick)
	defer tick.Stop()
	var allowance float64
	for b.table.len() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.log.Warn("drain timed out", zap.Int("sessions", b.table.len()))
			return ErrDrainTimeout
		}
		allowance += rate * moveTick.Seconds()
		for _, s := range b.table.all() {
			if allowance < 1 {
				break
			}
			if s.beginClose(Restart, 0, "") {
				allowance--
			}
		}
	}
	return nil
}

// awaitLeft waits until this member's own view has it out of the ring: clients that are sent away should not be sent back. Where
// nothing can be announced there is nothing to wait for.
func (b *Backend) awaitLeft(ctx context.Context) {
	if _, ok := b.source.(discovery.Announcer); !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, drainSeen)
	defer cancel()
	left := make(chan struct{}, 1)
	look := func(_, now *discovery.Snapshot) {
		if m, known := now.Member(b.cfg.ID); !known || !m.InRing() {
			select {
			case left <- struct{}{}:
			default:
			}
		}
	}
	stop := b.view.Subscribe(look)
	defer stop()
	look(nil, b.view.Snapshot())
	select {
	case <-left:
	case <-ctx.Done():
	}
}

// closeAll closes every session and waits until the last one's handlers have returned, which is when empty is closed. A close
// handshake takes at most closeTimeout; a handler that takes longer is left behind, and named in the error.
func (b *Backend) closeAll(reason CloseReason, empty <-chan struct{}) error {
	limit := time.NewTimer(closeTimeout + handlerTimeout)
	defer limit.Stop()
	tick := time.NewTicker(moveTick)
	defer tick.Stop()
	for {
		for _, s := range b.table.all() { // again and again: one that came through the door at the last moment may register late
			s.beginClose(reason, 0, "")
		}
		select {
		case <-empty:
			return nil
		case <-tick.C:
		case <-limit.C:
			return fmt.Errorf("the handlers of %d sessions have not returned; they are left behind", b.door.count())
		}
	}
}
