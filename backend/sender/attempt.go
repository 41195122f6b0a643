package sender

import (
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strconv"
	"time"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
)

const (
	backoffFirst = 20 * time.Millisecond // the most that is waited before the first try that waits; doubled for each after it
	backoffMost  = time.Second           // it never waits longer than this, unless it was told to

	tryShare = 3                      // a try gets this part of the time left, so that a member that hangs leaves some to others,
	tryLeast = 100 * time.Millisecond // but this where there is as much,
	tryMost  = pushv1.DefaultTimeout  // and never more than this
)

// call makes one call for user ("": any member will do) until a member has answered it completely, has refused it for good, or ctx, which has a
// deadline, ends. It is one try at a time. The first retry asks the next member at once if the first one was away; each
// other waits, by full jitter. Retries come out of the sender's budget: where that is empty, a call goes on waiting.
func call[R any](ctx context.Context, s *Sender, user string, try func(context.Context, pushv1.PushServiceClient) (R, error)) (R, error) {
	var none R
	way := walk{sender: s, user: user}
	var so failure
	s.budget.earn()
	for backoff := backoffFirst; ; {
		if so.tries == 0 || s.budget.take(time.Now()) {
			m, err := way.next(ctx)
			if err != nil {
				return none, err
			}
			if m == nil {
				so.last, so.wait = errNoMembers, 0
			} else {
				if so.tries > 0 {
					s.metrics.retries.Inc()
				}
				result, err := attempt(ctx, m, try)
				if err == nil || !isRetryable(err) {
					return result, err
				}
				so.add(ctx, m, err)
				if ctx.Err() != nil {
					return none, so.err(ctx.Err())
				}
				if so.tries == 1 && walksOn(err) && way.hasOther() {
					continue
				}
			}
		} else {
			so.held = true
		}
		pause := max(time.Duration(mathrand.Int64N(int64(backoff))), so.wait)
		if deadline, _ := ctx.Deadline(); so.wait > time.Until(deadline) {
			return none, so.err(fmt.Errorf("told to wait for %v, beyond the deadline", so.wait))
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return none, so.err(ctx.Err())
		}
		backoff = min(2*backoff, backoffMost)
	}
}

// attempt makes one try at m, in its share of the time that ctx leaves.
func attempt[R any](ctx context.Context, m *member, try func(context.Context, pushv1.PushServiceClient) (R, error)) (R, error) {
	deadline, _ := ctx.Deadline()
	one, cancel := context.WithTimeout(ctx, min(max(time.Until(deadline)/tryShare, tryLeast), tryMost))
	defer cancel()
	result, err := try(one, m.client)
	if ctx.Err() == nil {
		m.heard(err != nil && isRetryable(err) && isAway(err))
	}
	return result, err
}

// partial is what a member said of some of the users that it was asked for; it answered for the others.
type partial struct{ error }

func (p partial) Unwrap() error { return p.error }

// isSaid tells whether a member said err; else the connection failed, or no answer came in time.
func isSaid(err error) bool {
	var p partial
	return connect.IsWireError(err) || errors.As(err, &p)
}

// isRetryable tells whether another try, here or at another member, may settle the call. While ctx lasts, a call that was cancelled was so by
// the member's end, and an unknown error that no member sent is the connection's. resource_exhausted is for good where the request is
// too large, and passes where a queue or a memory is full.
func isRetryable(err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable, connect.CodeAborted, connect.CodeCanceled, connect.CodeDeadlineExceeded:
		return true
	case connect.CodeResourceExhausted:
		return pushv1.DetailOf(err).GetReason() == pushv1.Reason_OVERLOADED
	case connect.CodeUnknown:
		return !isSaid(err)
	default:
		return false
	}
}

// walksOn tells of a retryable error whether another member may well answer now. What is unsettled, or full, is so whoever is asked; time helps.
func walksOn(err error) bool {
	var p partial
	code := connect.CodeOf(err)
	return code != connect.CodeAborted && code != connect.CodeResourceExhausted && !errors.As(err, &p)
}

// isAway tells of a retryable error whether it lies in the member that was asked, rather than in one behind it.
func isAway(err error) bool {
	reason := pushv1.DetailOf(err).GetReason()
	return walksOn(err) && reason != pushv1.Reason_HOME_AWAY && reason != pushv1.Reason_NO_MEMBERS
}

var errNoMembers = pushv1.NewError(connect.CodeUnavailable, &pushv1.ErrorDetail{Reason: pushv1.Reason_NO_MEMBERS},
	errors.New("no member of the service is up"))

// failure is what a call's tries have shown so far.
type failure struct {
	tries   int
	reached uint32        // sessions, by the try that knew of most: repeats count what earlier tries reached
	last    error         // of the tries, the last that says more than that the call's own time ran out
	at      string        // whom it asked
	wait    time.Duration // Retry-After of the last try
	held    bool          // the retry budget was empty at some time
}

func (f *failure) add(ctx context.Context, m *member, err error) {
	f.tries++
	f.wait = retryAfter(err)
	f.reached = max(f.reached, pushv1.DetailOf(err).GetSessions())
	if f.last == nil || ctx.Err() == nil || isSaid(err) {
		f.last, f.at = err, m.name
	}
}

// err is the error of a call that has ended without a complete answer: the last try's code, reason and message, and what is known besides.
func (f *failure) err(end error) error {
	detail := pushv1.DetailOf(f.last)
	detail = &pushv1.ErrorDetail{Reason: detail.Reason, Member: detail.Member, Sessions: f.reached}
	text := message(f.last).Error()
	if f.at != "" {
		text = "asked " + f.at + ": " + text
	}
	known := fmt.Sprintf("tries: %d", f.tries)
	if f.held {
		known += ", held back by the retry budget"
	}
	if f.reached > 0 {
		known += fmt.Sprintf(", sessions reached: at least %d", f.reached)
	}
	return pushv1.NewError(connect.CodeOf(f.last), detail, fmt.Errorf("%s; %w (%s)", text, end, known))
}

// retryAfter is for how long a member asked to be left alone (RFC 9110, section 10.2.3); the form with a date, which needs clocks that
// agree, is not heeded.
func retryAfter(err error) time.Duration {
	var e *connect.Error
	if !errors.As(err, &e) {
		return 0
	}
	seconds, failed := strconv.ParseUint(e.Meta().Get("Retry-After"), 10, 32)
	if failed != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}
