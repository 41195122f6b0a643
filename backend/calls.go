package backend

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/homing"
	"github.com/selvedge/selvedge/internal/peerlink"
	"github.com/selvedge/selvedge/internal/peerv1"
	"github.com/selvedge/selvedge/internal/tracing"
)

// send makes a call of the protocol, and hands its outcome to the node that asked for it.
func (h *home) send(n *homing.Node, e homing.Send) {
	ctx, cancel := context.WithTimeout(h.ctx, e.Timeout)
	defer cancel()
	request := &peerv1.Request{Caller: callerToWire(e.Caller)}
	switch r := e.Request.(type) {
	case homing.Hello:
		request.Body = &peerv1.Request_Hello{Hello: &peerv1.Hello{}}
	case homing.Poll:
		request.Body = &peerv1.Request_Poll{Poll: &peerv1.Poll{Seen: r.Seen, RingDigest: h.ringDigest(n)}}
	case homing.Announce:
		request.Body = &peerv1.Request_Announce{Announce: &peerv1.Announce{Sequence: r.Sequence, Users: usersToWire(r.Users)}}
	case homing.Goodbye:
		request.Body = &peerv1.Request_Goodbye{Goodbye: &peerv1.Goodbye{}}
	}
	reply, err := h.links.Call(ctx, e.To.Addr, request)
	if err != nil {
		h.tell(n, func(now homing.Instant) { n.Failed(now, e.Call, failureOf(err)) })
		return
	}
	out := homing.Reply{Callee: calleeFromWire(reply.GetCallee())}
	if promise := reply.GetPoll(); promise != nil {
		if out.Promise, err = h.promiseFromWire(promise); err != nil {
			h.b.log.Warn("a promise cannot be read", logPeer(e.To.Process, err)...)
		}
	}
	h.tell(n, func(now homing.Instant) { n.Replied(now, e.Call, out) })
}

func failureOf(err error) homing.Failure {
	if errors.Is(err, peerlink.ErrRefused) {
		return homing.ConnectionRefused
	}
	return homing.NoAnswer
}

// ask puts an errand's question to a peer.
func (h *home) ask(n *homing.Node, a homing.Ask) {
	e := a.Question.Context.(*errand)
	ctx := e.ctx
	if a.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, a.Timeout)
		defer cancel()
	}
	if a.Forward {
		h.b.metrics.forwards.Inc()
	} else {
		h.b.metrics.asks.Inc()
	}
	kind := tracing.Ask
	if a.Forward {
		kind = tracing.Forward
	}
	span := h.b.tracer.Child(e.span, kind, a.To.Member)
	reply, err := h.links.Call(ctx, a.To.Addr, e.request(ctx, a, span.Traceparent()))
	if errors.Is(err, peerlink.ErrLost) { // the process may have died: a new connection tells, and the message id keeps it from being sent twice
		reply, err = h.links.Call(ctx, a.To.Addr, e.request(ctx, a, span.Traceparent()))
	}
	span.End(len(reply.GetAnswer().GetSessions()), err)
	if err != nil {
		h.tell(n, func(now homing.Instant) { n.Unanswered(now, a.Question, a.To.Process, failureOf(err)) })
		return
	}
	answer := e.answer(reply)
	h.tell(n, func(now homing.Instant) {
		n.Answered(now, a.Question, a.To.Process, calleeFromWire(reply.GetCallee()), answer)
	})
}

func (e *errand) request(ctx context.Context, a homing.Ask, traceparent string) *peerv1.Request {
	r := &peerv1.Request{Caller: callerToWire(a.Caller)}
	switch {
	case e.message == nil:
		r.Body = &peerv1.Request_Presence{Presence: &peerv1.Presence{User: e.user, Forward: a.Forward, RemainingMs: remaining(ctx)}}
	case e.question.Everywhere:
		r.Body = &peerv1.Request_Broadcast{Broadcast: &peerv1.Broadcast{Message: e.message.proto(), RemainingMs: remaining(ctx)}}
	default:
		r.Body = &peerv1.Request_Deliver{Deliver: &peerv1.Deliver{
			User: e.user, Message: e.message.proto(), Forward: a.Forward, RemainingMs: remaining(ctx), ExceptSession: e.message.except,
			Traceparent: traceparent,
		}}
	}
	return r
}

// answer reads a peer's reply to the errand's question.
func (e *errand) answer(reply *peerv1.Reply) homing.Answer {
	w := reply.GetAnswer()
	if w == nil { // refused, which the head of the reply says, or of a later release
		return homing.Answer{Undecided: true}
	}
	a := homing.Answer{
		Sessions:  w.Sessions,
		Complete:  w.Complete,
		Undecided: w.Undecided,
		Openings:  w.Openings,
		Moving:    time.Duration(w.MovingMs) * time.Millisecond,
	}
	if w.Error != nil {
		a.Final = errorFromWire(w.Error)
	}
	e.show(w.Presence)
	e.add(int(w.Count))
	return a
}

// closeThere closes sessions of a user where another process holds them, and returns how many there were to close.
func (h *home) closeThere(ctx context.Context, holder homing.Peer, d *peerv1.Disconnect) (int, error) {
	h.mu.Lock()
	caller := homing.Caller{Peer: h.peer, Callee: holder.Process}
	h.mu.Unlock()
	d.RemainingMs = remaining(ctx)
	reply, err := h.links.Call(ctx, holder.Addr, &peerv1.Request{Caller: callerToWire(caller), Body: &peerv1.Request_Disconnect{Disconnect: d}})
	switch {
	case errors.Is(err, peerlink.ErrRefused):
		return 0, nil // gone, and its sessions with it
	case err != nil:
		return 0, fmt.Errorf("member %s: %w: %w", holder.Member, ErrUnsettled, err)
	case reply.GetAnswer() == nil:
		return 0, fmt.Errorf("member %s did not look at it (%s): %w", holder.Member, reply.GetCallee().GetRefusal(), ErrUnsettled)
	}
	return len(reply.GetAnswer().Sessions), nil
}

// remaining is what is left of ctx's time, in milliseconds; it travels as a duration since clocks differ.
func remaining(ctx context.Context) uint32 {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return uint32(max(time.Until(deadline).Milliseconds(), 1))
}

// withTimeout bounds the work for a caller by what it asked for, in milliseconds (0 is the default, maxTimeout the most), and by
// what its own deadline, which is ctx's, leaves. A little is kept back for the answer's way: that something is uncertain, and how
// many were reached, must be with the caller before its patience ends.
func withTimeout(ctx context.Context, milliseconds uint32) (context.Context, context.CancelFunc) {
	timeout := time.Duration(milliseconds) * time.Millisecond
	if timeout == 0 {
		timeout = pushv1.DefaultTimeout
	}
	timeout = min(timeout, maxTimeout)
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(deadline))
	}
	return context.WithTimeout(ctx, timeout-min(timeout/10, answerTime))
}

// codeOf is what err is called on the wire between members.
func (h *home) errorToWire(err error) *peerv1.Error {
	typed := h.b.rpcError(err)
	return &peerv1.Error{Code: connect.CodeOf(typed).String(), Message: err.Error(), Reason: pushv1.DetailOf(typed).GetReason()}
}

// errorFromWire makes the error anew that a peer's answer names.
func errorFromWire(w *peerv1.Error) error {
	for _, known := range []struct {
		reason pushv1.Reason
		err    error
	}{
		{pushv1.Reason_MESSAGE_REUSED, ErrMessageReused},
		{pushv1.Reason_OVERLOADED, ErrOverloaded},
		{pushv1.Reason_OVERTAKEN, ErrOvertaken},
	} {
		if w.Reason == known.reason {
			return fmt.Errorf("%w (as a peer says)", known.err)
		}
	}
	return fmt.Errorf("%s: %s: %w", w.Code, w.Message, ErrUnsettled)
}
