package backend

import (
	"context"
	"slices"
	"time"

	"github.com/selvedge/selvedge/internal/homing"
)

// batchErrands is how many errands pass the home's lock at once: it is held for some hundred microseconds then.
const batchErrands = 256

// settleAtOnce begins many errands, each of which has its ctx, and settles in the calling goroutine, and in few passages of the lock,
// those that need nobody else: in calm nearly all pushes to users who are at home here. Every message has been handed to its local sessions
// when it returns. For the others, which are marked as later, await is due.
func (h *home) settleAtOnce(errands []*errand) {
	for some := range slices.Chunk(errands, batchErrands) {
		h.settleBatch(some)
	}
}

func (h *home) settleBatch(errands []*errand) {
	h.mu.Lock()
	now, node := bootClock(), h.node
	for _, e := range errands {
		e.question.Sessions = e.room[:0]
		h.begin(now, e)
	}
	h.carryOut(node)
	for _, e := range errands {
		e.due = e.look
	}
	h.mu.Unlock()

	for _, e := range errands {
		if e.due { // and stays so if it need not wait; else await looks again, and finds the delivery that has begun
			e.here, e.due = h.lookNow(now, e)
		}
	}

	h.mu.Lock()
	defer h.mu.Unlock()
	now = bootClock()
	for _, e := range errands {
		if e.due {
			e.look = false
			node.Looked(now, &e.question, e.here)
		}
	}
	h.carryOut(node)
	for _, e := range errands {
		e.later = !e.settled
	}
}

// lookNow is lookHere for a push, if that need not wait for a session.
func (h *home) lookNow(now homing.Instant, e *errand) (a homing.Answer, done bool) {
	d, err := h.b.hand(now, e.user, e.message)
	if d == nil || err != nil {
		return answerOf(nil, err), true
	}
	if d.isBusy() {
		return a, false
	}
	return answerOf(d.outcome(context.Background())), true
}

// begin puts an errand's question to the node. The caller holds mu.
func (h *home) begin(now homing.Instant, e *errand) {
	e.question.Context = e
	if deadline, ok := e.ctx.Deadline(); ok {
		e.question.Deadline = now + homing.Instant(time.Until(deadline))
	}
	e.node = h.node
	e.node.Ask(now, &e.question)
}
