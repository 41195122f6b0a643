package bridge

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/backend/sender"
)

// pusher is what a bridge uses of a sender.
type pusher interface {
	Push(ctx context.Context, user string, m sender.Message) (sender.Result, error)
	PushMany(ctx context.Context, users []string, m sender.Message) ([]sender.Result, error)
	Broadcast(ctx context.Context, m sender.Message) (sessions int, unanswered []string, err error)
}

// errand is a message on its way to its users.
type errand struct {
	*message
	push  sender.Message
	users []string // each once
	all   bool     // everybody instead
	began time.Time

	wrong    error  // why it cannot be pushed; nil: it can
	reason   reason // with wrong
	sessions int    // that took it
	aside    int    // letters that were put aside, but for those of users who are offline
}

// take starts a message on its way, once there is room for one more. It tells whether ctx was still on.
func (b *Bridge) take(ctx context.Context, m *message) bool {
	select {
	case b.slots <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	b.metrics.inFlight.Inc()
	e := b.read(m)
	users := e.users
	if e.all {
		users = []string{""} // which is nobody's id: broadcasts keep their order among themselves
	}
	place := b.lines.enter(users)
	b.flight.Go(func() {
		outcome := returned
		if place.await(b.giveUp) {
			outcome = b.carry(e)
		}
		b.lines.leave(place, users)
		m.end(outcome != returned)
		b.metrics.ended(outcome, time.Since(e.began))
		<-b.slots
	})
	return true
}

// read finds out what is to be pushed to whom.
func (b *Bridge) read(m *message) *errand {
	e := &errand{message: m, began: time.Now()}
	fail := func(r reason, err error) *errand {
		e.reason, e.wrong = r, err
		return e
	}
	var err error
	if e.users, e.all, err = b.user.users(m); errors.Is(err, errNoJSON) {
		return fail(isMalformed, err)
	} else if err != nil {
		return fail(hasNoUser, err)
	}
	data, err := b.payload.value(m)
	if err != nil {
		return fail(isMalformed, fmt.Errorf("payload: %w", err))
	}
	if !b.cfg.Binary && !utf8.Valid(data) {
		return fail(isMalformed, errors.New("the payload is not UTF-8; binary messages want --binary"))
	}
	e.push = sender.Message{Data: data, Binary: b.cfg.Binary, ID: m.id}
	if len(b.id) > 0 {
		id, err := b.id.value(m)
		if err == nil && len(id) == 0 {
			err = errNotThere
		}
		if err != nil {
			return fail(isMalformed, fmt.Errorf("id: %w", err))
		}
		e.push.ID = givenID(string(id))
	}
	if e.push.ID == "" { // the repeats of this process must not come twice, at least
		e.push.ID = rand.Text()
		b.metrics.unnamed.Inc()
	}
	return e
}

// carry brings e to its outcome: each user has it, is offline, or their part is put aside.
func (b *Bridge) carry(e *errand) outcome {
	if e.wrong != nil {
		if !b.putAside(e, letter{reason: e.reason, text: e.wrong.Error()}) {
			return returned
		}
		return e.outcome()
	}
	left := e.users
	for tries, wait := 0, retryFirst; ; wait = min(2*wait, retryMost) {
		so := b.try(e, left)
		for _, l := range so.letters {
			if !b.putAside(e, l) {
				return returned
			}
		}
		if so.err == nil {
			return e.outcome()
		}
		left = so.left
		if so.counts {
			tries++
		}
		if tries >= b.cfg.Tries {
			if e.all {
				left = []string{""}
			}
			for _, user := range left {
				if !b.putAside(e, letter{isExhausted, user, so.err.Error()}) {
					return returned
				}
			}
			return e.outcome()
		}
		b.metrics.retries.Inc()
		b.sayRetry.Do(func() {
			b.log.Warn("a message is tried again; its outcome is not certain", zap.Int("tries", tries), zap.Int("users", len(left)), zap.Error(so.err))
		})
		if !b.wait(mathrand.N(wait)) {
			return returned
		}
	}
}

const (
	retryFirst = 100 * time.Millisecond // the most that is waited after the first try; doubled for each after it
	retryMost  = 30 * time.Second       // with a try's own time less than the minute for which members remember an id
)

// wait waits for d, or returns false where the bridge gives up what it has not settled.
func (b *Bridge) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-b.giveUp:
		return false
	}
}

// tried is what one try has shown.
type tried struct {
	letters []letter // to put aside now
	left    []string // users whose outcome is not certain
	err     error    // why, for one of them; nil: all is settled
	counts  bool     // the try was made, and failed
}

// try pushes e once to those users.
func (b *Bridge) try(e *errand, users []string) (so tried) {
	ctx, cancel := context.WithTimeout(context.Background(), b.cfg.Timeout) // a drain lets it end by itself
	defer cancel()
	switch {
	case e.all:
		sessions, unanswered, err := b.pusher.Broadcast(ctx, e.push)
		if err == nil && len(unanswered) > 0 {
			err = fmt.Errorf("%d members have not answered, among them %s", len(unanswered), unanswered[0])
		}
		e.sessions = max(e.sessions, sessions)
		so.judge(sender.Result{Err: err, Sessions: sessions}, false)
	case len(users) == 1:
		result, _ := b.pusher.Push(ctx, users[0], e.push) // the error stands in the result
		e.sessions += so.judge(result, b.cfg.DeadLetterOffline)
	default:
		results, err := b.pusher.PushMany(ctx, users, e.push)
		if err != nil {
			so.judge(sender.Result{Err: err}, false)
			so.left = users
			return so
		}
		for _, r := range results {
			e.sessions += so.judge(r, b.cfg.DeadLetterOffline)
		}
	}
	return so
}

// judge sorts one user's result, and returns the sessions of a settled one.
func (so *tried) judge(r sender.Result, keepOffline bool) (sessions int) {
	if r.Err == nil {
		if r.Sessions == 0 && keepOffline {
			so.letters = append(so.letters, letter{isOffline, r.User, ""})
		}
		return r.Sessions
	}
	switch code := connect.CodeOf(r.Err); {
	case code == connect.CodeAlreadyExists:
		so.letters = append(so.letters, letter{isReused, r.User, r.Err.Error()})
	case code == connect.CodeInvalidArgument,
		code == connect.CodeResourceExhausted && pushv1.DetailOf(r.Err).GetReason() != pushv1.Reason_OVERLOADED:
		so.letters = append(so.letters, letter{isRefused, r.User, r.Err.Error()})
	default:
		so.left, so.err = append(so.left, r.User), r.Err
		so.counts = so.counts || !isOutage(code)
	}
	return 0
}

// isOutage tells of errors that are nobody's message's fault, and last until somebody mends the service or what the bridge may do there.
func isOutage(code connect.Code) bool {
	switch code {
	case connect.CodeUnavailable, connect.CodeUnauthenticated, connect.CodePermissionDenied, connect.CodeUnimplemented:
		return true
	default:
		return false
	}
}

// putAside keeps a letter in the broker, however long that takes, or returns false where the bridge gives up. Where the broker keeps
// nothing it is lost, and counted so.
func (b *Bridge) putAside(e *errand, l letter) bool {
	for wait := retryFirst; e.keep != nil; wait = min(2*wait, retryMost) {
		ctx, cancel := context.WithTimeout(context.Background(), b.cfg.Timeout)
		err := e.keep(ctx, l)
		cancel()
		if err == nil {
			break
		}
		b.sayAside.Do(func() { b.log.Error("a message cannot be put aside in the broker; it is tried again", zap.Error(err)) })
		if !b.wait(mathrand.N(wait)) {
			return false
		}
	}
	b.metrics.putAside(l.reason)
	if l.reason == isOffline {
		return true
	}
	e.aside++
	b.sayAside.Do(func() {
		text := "a message is parked"
		if e.keep == nil {
			text = "a message is dropped; this broker has no place to park it in"
		}
		b.log.Warn(text, zap.String("reason", string(l.reason)), zap.String("error", l.text))
	})
	return true
}

// outcome is what became of a message whose users' parts are all settled.
func (e *errand) outcome() outcome {
	switch {
	case e.aside > 0 && e.keep == nil:
		return dropped
	case e.aside > 0:
		return parked
	case e.sessions > 0:
		return delivered
	default:
		return offline
	}
}
