package backend

import (
	"context"
	"sync"
	"time"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/homing"
	"github.com/selvedge/selvedge/internal/tracing"
)

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

// push is the life of a push from a sender at the member that it called.
func (b *Backend) push(ctx context.Context, user string, m *message) (sessions int, err error) {
	e := b.newErrand(user, m)
	e.span = b.tracer.Start(ctx, tracing.Push, "")
	b.home.settle(ctx, e)
	return b.pushed(e)
}

// pushed is the end of a push whose errand is settled: what became of it, counted. It takes time where the service keeps the message.
func (b *Backend) pushed(e *errand) (sessions int, err error) {
	sessions, err = len(e.question.Sessions), e.err()
	if err == nil && sessions == 0 {
		err = b.isOurs(e.user)
	}
	if err == nil && b.isOffline(e) {
		err = b.keepOffline(e)
	}
	if err != nil {
		err = alsoReached(err, sessions)
	}
	b.metrics.pushSeconds.Observe(time.Since(e.start).Seconds())
	b.metrics.push(outcomeOf(sessions), err)
	if !e.sharesSpan {
		e.span.Message(e.message.id)
		e.span.End(sessions, err)
	}
	return sessions, err
}

func (b *Backend) newErrand(user string, m *message) *errand {
	e := new(errand)
	b.setErrand(e, time.Now(), user, m)
	return e
}

func (b *Backend) setErrand(e *errand, start time.Time, user string, m *message) {
	e.user, e.message, e.start = user, m, start
	e.question.User = b.userHash(user)
}

// userHash is what the ownership protocol knows of a user.
func (b *Backend) userHash(user string) homing.User {
	return homing.User(b.view.Snapshot().Ring.Hash(user))
}

// isOurs tells whether the sessions of user would be at members that can be asked: of a member without an RPC listener nobody knows
// what it holds.
func (b *Backend) isOurs(user string) error {
	snapshot := b.view.Snapshot()
	if owner, known := snapshot.Member(snapshot.Ring.Owner(user)); known && owner.RPCAddr == "" && owner.State == discovery.Serving {
		return &foreignOwner{owner.ID}
	}
	return nil
}

func outcomeOf(sessions int) pushv1.Outcome {
	if sessions > 0 {
		return pushv1.Outcome_DELIVERED
	}
	return pushv1.Outcome_OFFLINE
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
