package edge

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"go.uber.org/zap"

	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/tunnel"
)

const (
	moveTick  = 100 * time.Millisecond // how often sessions are closed during a move
	moveLook  = time.Second            // how often those that must wait are looked at again
	awayMost  = 1 << 16                // users whose owner was passed over that are remembered; the oldest are forgotten
	awayFirst = 10 * time.Second       // how long their sessions are left alone; doubled each time it happens again
	awayLimit = 10 * time.Minute
)

// movePace bounds how fast sessions are closed; the slower bound wins, and at least one a second goes.
type movePace struct {
	settle time.Duration // members must not have changed for so long
	spread time.Duration // a change's moves are spread over this
	share  float64       // of the service's sessions, closed in a second at most
}

var defaultPace = movePace{settle: 3 * time.Second, spread: 10 * time.Second, share: 0.05}

// rate is how many sessions are closed a second where moving of sessions must go.
func (p movePace) rate(moving, sessions int) float64 {
	return max(1, min(float64(moving)/p.spread.Seconds(), p.share*float64(sessions)))
}

// mover closes the sessions of a service whose users have another owner now, for backends that cannot do so themselves: those that use
// our package close theirs with 1012, once the new home has agreed. Requests that wait at a member, such as a long poll, are moved with them.
// Only a service with MoveClose has a mover; the methods that sessions call do nothing without one, and there is nothing to
// remember of a session then.
type mover struct {
	service *pool
	pace    movePace
	stop    context.CancelFunc // ends run; nil before it; under Edge.mu

	changedAt atomic.Int64  // Unix nanoseconds of the last change of members
	nudge     chan struct{} // wakes run; holds one

	mu    sync.Mutex
	seats map[sitter]seat             // of users, at members that do not move them
	away  *lru.Cache[string, absence] // by user
}

// sitter keeps a user at a member: a session, or a request that waits for its answer there.
type sitter interface {
	leave() bool // asks it to end; false: that has been done, or cannot be done now
}

func (one *session) leave() bool { return one.service.edge.sessions.end(one, tunnel.Moved) }

// poll is a request that waits for its answer.
type poll struct {
	over   atomic.Bool // by its answer, or since it has been asked to leave
	cancel context.CancelFunc
}

func (p *poll) leave() bool {
	if p.over.Swap(true) {
		return false
	}
	p.cancel()
	return true
}

// errMoved is why a request does not wait any more where it did.
var errMoved = errors.New("the user has another owner now")

// seat is where a user's session is. With its entry in the map it takes some 90 bytes and the user id.
type seat struct {
	user, member string
}

// absence is when a user's owner was passed over last, and how often in a row. Who came to another member because the owner does not
// answer would come there again.
type absence struct {
	at    time.Time
	times int
}

// until is when the user's sessions may be closed.
func (a absence) until() time.Time {
	if a.times == 0 {
		return a.at
	}
	return a.at.Add(min(awayFirst<<min(a.times-1, 10), awayLimit))
}

// next is the absence after another one at now. What opens before the time is over did not come because it was closed: devices that
// come together count once.
func (a absence) next(now time.Time) absence {
	switch {
	case a.times == 0 || now.Sub(a.at) > 2*awayLimit:
		return absence{now, 1}
	case now.Before(a.until()):
		return a
	default:
		return absence{now, a.times + 1}
	}
}

func newMover(svc *pool) *mover {
	m := &mover{service: svc, pace: defaultPace, nudge: make(chan struct{}, 1), seats: make(map[sitter]seat)}
	m.away, _ = lru.New[string, absence](awayMost) // fails for a size below 1
	return m
}

func (m *mover) membersChanged(_, _ *discovery.Snapshot) {
	m.changedAt.Store(time.Now().UnixNano())
	m.wake()
}

func (m *mover) wake() {
	select {
	case m.nudge <- struct{}{}:
	default: // it is awake already
	}
}

// add remembers a session of user's at a member. A member that can be pushed to moves its sessions itself, and nobody's belong anywhere.
func (m *mover) add(one *session, user string, at candidate) {
	if m == nil || user == "" || at.RPCAddr != "" {
		return
	}
	user = strings.Clone(user) // it may be a piece of the request
	m.mu.Lock()
	m.seats[one] = seat{user, at.ID}
	if len(at.passedOver) == 0 {
		m.away.Remove(user)
	} else {
		last, _ := m.away.Get(user)
		m.away.Add(user, last.next(time.Now()))
	}
	m.mu.Unlock()
	if m.service.view.Snapshot().Ring.Owner(user) != at.ID {
		m.wake()
	}
}

func (m *mover) remove(one sitter) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.seats, one)
}

// wait remembers a request of user's that waits at a member: its context ends when the user is moved. settle is called when it does not wait
// any more, and tells whether it was left alone.
func (m *mover) wait(ctx context.Context, user string, at candidate) (_ context.Context, settle func() bool) {
	if m == nil || user == "" || at.RPCAddr != "" {
		return ctx, func() bool { return true }
	}
	one := new(poll)
	ctx, one.cancel = context.WithCancel(ctx)
	m.mu.Lock()
	m.seats[one] = seat{strings.Clone(user), at.ID}
	m.mu.Unlock()
	if len(at.passedOver) == 0 && m.service.view.Snapshot().Ring.Owner(user) != at.ID { // the members have changed since it was chosen
		m.wake()
	}
	return ctx, func() bool { m.remove(one); return !one.over.Swap(true) }
}

// run moves whoever is misplaced once members have been still for a moment, until ctx ends.
func (m *mover) run(ctx context.Context) {
	defer m.service.view.Subscribe(m.membersChanged)()
	m.membersChanged(nil, nil) // what happened before is looked at
	for {
		select {
		case <-m.nudge:
		case <-ctx.Done():
			return
		}
		for wait := m.unsettled(); wait > 0; wait = m.unsettled() {
			pause := time.NewTimer(wait)
			select {
			case <-pause.C:
			case <-ctx.Done():
				pause.Stop()
				return
			}
		}
		m.moveMisplaced(ctx)
	}
}

// unsettled is how long members must go on being still; 0 or less: they are.
func (m *mover) unsettled() time.Duration {
	return time.Until(time.Unix(0, m.changedAt.Load()).Add(m.pace.settle))
}

// moveMisplaced closes who is misplaced under the ring in force, at the pace, until nobody is left or the ring changes.
func (m *mover) moveMisplaced(ctx context.Context) {
	ring := m.service.view.Snapshot().Ring
	movable, waiting := m.misplaced()
	if len(movable)+waiting == 0 {
		return
	}
	defer m.service.toMove.Store(0)
	rate := m.pace.rate(len(movable), m.size())
	m.service.log.Info("sessions are misplaced", zap.Int("sessions", len(movable)), zap.Int("whose_owner_was_passed_over", waiting),
		zap.Float64("moves_per_second", rate))
	tick := time.NewTicker(moveTick)
	defer tick.Stop()
	var allowance float64
	looked, counted := time.Now(), time.Now()
	for len(movable)+waiting > 0 {
		m.service.toMove.Store(int64(len(movable) + waiting))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if m.service.view.Snapshot().Ring != ring {
			m.wake()
			return
		}
		now := time.Now()
		allowance = min(allowance+rate*now.Sub(counted).Seconds(), max(1, rate))
		for counted = now; allowance >= 1 && len(movable) > 0; movable = movable[1:] {
			if movable[0].leave() {
				allowance--
			}
		}
		if now.Sub(looked) >= moveLook {
			looked = now
			movable, waiting = m.misplaced() // with those that came, or whose time has come, since
			rate = max(rate, m.pace.rate(len(movable), m.size()))
		}
	}
}

// size is how many sessions the service has, or seats where they are more.
func (m *mover) size() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(int(m.service.open.Load()), len(m.seats))
}

// misplaced lists the sessions to close, in random order, and counts those that are left alone for now: their owner is avoided, or was
// passed over lately. Under a lock it costs some 200 ns for each session of the service.
func (m *mover) misplaced() (movable []sitter, waiting int) {
	snap := m.service.view.Snapshot()
	if snap.Ring.Len() == 0 {
		return nil, 0 // nobody to move them to
	}
	now := time.Now()
	avoided := make(map[string]bool)
	for _, member := range snap.Members {
		avoided[member.ID] = m.service.outliers.avoids(member)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for one, s := range m.seats {
		owner := snap.Ring.Owner(s.user)
		if owner == s.member {
			continue
		}
		last, _ := m.away.Peek(s.user)
		if avoided[owner] || now.Before(last.until()) {
			waiting++
			continue
		}
		movable = append(movable, one)
	}
	rand.Shuffle(len(movable), func(i, j int) { movable[i], movable[j] = movable[j], movable[i] })
	return movable, waiting
}
