package backend

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/homing"
	"github.com/selvedge/selvedge/internal/tracing"
)

// errand is one question to all who may hold sessions of a user, or of everybody, from its start at this member to its result: a
// push, a broadcast, or a list of sessions.
type errand struct {
	question   homing.Question
	node       *homing.Node
	ctx        context.Context
	cancel     context.CancelFunc // of ctx, where the errand has one of its own
	later      bool               // it could not be settled at once
	start      time.Time
	user       string
	message    *message           // nil: the sessions are listed, nothing is sent
	span       tracing.Span       // of the push, which pushed ends
	sharesSpan bool               // it is that of a push to many, which ends by itself
	room       [1]string          // of question.Sessions, for a user with one
	result     *pushv1.PushResult // where a push to many tells the outcome
	due        bool               // of a batch: this process's own answer is asked for, and then, is there
	here       homing.Answer      // that answer

	// under home.mu
	lent    bool          // goroutines that ask others hold on to it, even once it is settled: it is not to be used again
	look    bool          // the node asks what there is here
	settled bool          // question has the result
	wake    chan struct{} // told of both, once somebody waits; holds one

	mu    sync.Mutex
	shown []*pushv1.Session // of a list, each once
	count int               // of a broadcast: sessions that took it
}

func (e *errand) mustLook()  { e.look = true; e.signal() }
func (e *errand) isSettled() { e.settled = true; e.signal() }

func (e *errand) signal() {
	if e.wake == nil {
		return
	}
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// settle carries e from its start to its result, or to the end of ctx. The calling goroutine does the local work.
func (h *home) settle(ctx context.Context, e *errand) {
	e.ctx = ctx
	h.mu.Lock()
	h.begin(bootClock(), e)
	h.carryOut(e.node)
	h.mu.Unlock()
	h.await(e)
}

// await is settle for an errand that has begun.
func (h *home) await(e *errand) {
	ctx := e.ctx
	h.mu.Lock()
	defer h.mu.Unlock()
	for !e.settled {
		switch {
		case e.look:
			e.look = false
			h.mu.Unlock()
			here := h.lookHere(ctx, e)
			h.mu.Lock()
			e.node.Looked(bootClock(), &e.question, here)
		default:
			if e.wake == nil {
				e.wake = make(chan struct{}, 1)
			}
			h.mu.Unlock()
			select {
			case <-e.wake:
				h.mu.Lock()
				continue
			case <-ctx.Done():
			}
			h.mu.Lock()
			if !e.settled {
				e.node.Expire(bootClock(), &e.question)
			}
		}
		h.carryOut(e.node)
	}
}

// lookHere is this process's own answer.
func (h *home) lookHere(ctx context.Context, e *errand) homing.Answer {
	switch {
	case e.message == nil:
		return e.show(h.b.sessionsShown(e.user))
	case e.question.Everywhere:
		n, err := h.b.broadcastLocal(ctx, e.message)
		e.add(n)
		return answerOf(nil, err)
	default:
		return answerOf(h.b.deliverLocal(ctx, e.user, e.message))
	}
}

// answerOf tells what is undecided from what is refused.
func answerOf(took []string, err error) homing.Answer {
	a := homing.Answer{Sessions: took}
	switch {
	case errors.Is(err, ErrUnsettled), errors.Is(err, ErrNotJoined):
		a.Undecided = true
	case err != nil:
		a.Final = err
	}
	return a
}

// show takes over sessions that somebody lists.
func (e *errand) show(sessions []*pushv1.Session) (a homing.Answer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range sessions {
		a.Sessions = append(a.Sessions, s.Id)
		if !e.shows(s.Id) {
			e.shown = append(e.shown, s)
		}
	}
	return a
}

func (e *errand) shows(id string) bool {
	for _, s := range e.shown {
		if s.Id == id {
			return true
		}
	}
	return false
}

func (e *errand) add(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.count += n
}

// err says why the result is not certain; nil where it is.
func (e *errand) err() error {
	q := &e.question
	switch {
	case q.Certain:
		return nil
	case errors.Is(q.Final, homing.ErrNotJoined):
		return ErrNotJoined
	case q.Final != nil:
		return q.Final
	case len(q.Silent) > 0:
		var names []string
		for _, p := range q.Silent {
			names = append(names, p.Member)
		}
		return fmt.Errorf("no answer from %s: %w", strings.Join(names, ", "), ErrUnsettled)
	default:
		return fmt.Errorf("not all sessions have taken it, or they come and go too fast: %w", ErrUnsettled)
	}
}

// isQuick tells, after settleAtOnce, whether what is left to do for e takes no time.
func (b *Backend) isQuick(e *errand) bool { return !e.later && !b.isOffline(e) }
