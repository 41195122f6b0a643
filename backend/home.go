package backend

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/homing"
)

// calmAfter is how long after a change of members a home asks everybody, even where it has sessions itself: views catch up and
// moved sessions close meanwhile.
const (
	calmAfter  = 20 * time.Second
	greetedFor = 5 * confirmEvery
)

// homingView is what this member knows right now.
func (b *Backend) homingView() homing.View {
	snapshot := b.view.Snapshot()
	v := homing.View{
		Ring: snapshot.Ring,
		Self: b.cfg.ID,
		Calm: b.isCalm(),
	}
	for _, m := range snapshot.Members {
		if m.RPCAddr != "" && m.ID != b.cfg.ID {
			v.Peers = append(v.Peers, m.ID)
			v.Calm = v.Calm && m.InRing() // who left the ring may hold sessions of users of ours until it has drained
		}
	}
	return v
}

// isCalm tells whether nothing speaks against it that the sessions of users of ours are all here: members have not changed
// lately, nothing of ours is misplaced, no other member greets us (a member with misplaced sessions greets their homes every
// second), and this service moves its sessions at all.
func (b *Backend) isCalm() bool {
	since := func(nanos int64) time.Duration { return time.Since(time.Unix(0, nanos)) }
	return b.cfg.OnMove != MoveKeep && b.misplaced.Load() == 0 &&
		since(b.changedAt.Load()) > max(calmAfter, b.cfg.Move.Settle+2*b.cfg.Move.Spread) && since(b.greetedAt.Load()) > greetedFor
}

// deliver carries a push that is at its hops-th member to every session of the user and returns the ids of those that took it.
// Without an error that is all of them; with one, those known of.
func (b *Backend) deliver(ctx context.Context, user string, m *message, hops int) ([]string, error) {
	view := b.homingView()
	if view.Ring.Len() == 0 && hops == homing.FirstHop && b.table.len() == 0 {
		return nil, ErrNoMembers
	}
	plan := view.Route(user, hops)

	var passed <-chan answer
	if plan.Forward != "" {
		b.metrics.forwards.Inc()
		passed = b.ask(ctx, plan.Forward, user, m, hops+1)
	}
	took, err := b.deliverLocal(ctx, user, m)
	if errors.Is(err, ErrMessageReused) {
		return took, err
	}
	if passed != nil {
		home := <-passed
		if home.err == nil {
			return union(took, home.took), err
		}
		if !canStandIn(home.err) {
			return union(took, home.took), home.err
		}
		// The home is away: whoever could hold a session instead of it is asked from here.
		took = union(took, home.took)
		plan = view.Coordinate(false)
	}
	if len(plan.Ask) == 0 || len(took) > 0 && !plan.Always {
		return took, err
	}
	others, askErr := b.askAll(ctx, plan.Ask, user, m)
	return union(took, others), errors.Join(err, askErr)
}

// answer is what one member said of a push.
type answer struct {
	took []string
	err  error
}

// askAll puts the question to members at once. A member whose process is gone holds nothing and has thereby answered.
func (b *Backend) askAll(ctx context.Context, members []string, user string, m *message) (took []string, err error) {
	b.metrics.asks.Add(float64(len(members)))
	answers := make([]<-chan answer, len(members))
	elsewhere := 0 // reached by members that could not answer for all of theirs
	for i, id := range members {
		answers[i] = b.ask(ctx, id, user, m, homing.LeafHop)
	}
	for _, next := range answers {
		a := <-next
		took = union(took, a.took)
		if a.err != nil && !isGone(a.err) {
			err = errors.Join(err, a.err)
			elsewhere += reachedBefore(a.err)
		}
	}
	if err != nil {
		err = &reached{err, elsewhere}
	}
	return took, err
}

// ask sends a push on to a member and returns at once; the answer comes within ctx's time.
func (b *Backend) ask(ctx context.Context, id, user string, m *message, hops int) <-chan answer {
	out := make(chan answer, 1)
	go func() {
		took, err := b.peers.deliver(ctx, id, user, m, hops)
		out <- answer{took, err}
	}()
	return out
}

// Push delivers m to every session of user, wherever they are, and returns how many took it; 0 means that the user is offline.
// An error other than a misuse says that the outcome is not certain: push again with the same message id. ctx's deadline
// counts, up to 15 s; 5 s where it has none.
func (b *Backend) Push(ctx context.Context, user string, m Message, opts ...PushOption) (sessions int, err error) {
	msg := &message{Message: m}
	for _, opt := range opts {
		opt(msg)
	}
	if msg.id == "" {
		msg.id = b.newMessageID()
	}
	if err := msg.check(user); err != nil {
		return 0, err
	}
	timeout := maxTimeout
	if _, ok := ctx.Deadline(); !ok {
		timeout = pushv1.DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return b.push(ctx, user, msg)
}

// PushOption changes one push.
type PushOption func(*message)

// WithMessageID names the message: no session gets the same id twice, so that a push can be repeated safely.
func WithMessageID(id string) PushOption { return func(m *message) { m.id = id } }

// ExceptSession leaves one session out: the one that the message came from.
func ExceptSession(id string) PushOption { return func(m *message) { m.except = id } }

func (b *Backend) push(ctx context.Context, user string, m *message) (int, error) {
	start := time.Now()
	took, err := b.deliver(ctx, user, m, homing.FirstHop)
	sessions := len(took)
	if err != nil {
		err = alsoReached(err, sessions)
		sessions = reachedBefore(err)
	}
	b.metrics.pushSeconds.Observe(time.Since(start).Seconds())
	b.metrics.push(outcomeOf(sessions), err)
	return sessions, err
}

func outcomeOf(sessions int) pushv1.Outcome {
	if sessions > 0 {
		return pushv1.Outcome_DELIVERED
	}
	return pushv1.Outcome_OFFLINE
}

// union adds the ids of b to a; both are short.
func union(a, b []string) []string {
	for _, id := range b {
		if !slices.Contains(a, id) {
			a = append(a, id)
		}
	}
	return a
}

// each runs f for 0 to n-1 with at most width at once and waits for all.
func each(n, width int, f func(i int)) {
	var wg sync.WaitGroup
	gate := make(chan struct{}, width)
	for i := range n {
		gate <- struct{}{}
		wg.Go(func() {
			defer func() { <-gate }()
			f(i)
		})
	}
	wg.Wait()
}
