package backend

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/homing"
	"github.com/selvedge/selvedge/internal/peerv1"
	"github.com/selvedge/selvedge/internal/tracing"
)

// serve answers what another member asks. It is called in the order in which requests came on one stream, and does not wait: what
// takes time goes on in a goroutine.
func (h *home) serve(ctx context.Context, r *peerv1.Request, reply func(*peerv1.Reply)) {
	caller := callerFromWire(r.GetCaller())
	age := h.ages.of(caller.Peer.Process, r.GetCaller().GetSentMs(), bootClock())
	switch body := r.GetBody().(type) {
	case *peerv1.Request_Hello:
		h.handle(caller, homing.Hello{}, "", reply)
	case *peerv1.Request_Poll:
		h.handle(caller, homing.Poll{Seen: body.Poll.GetSeen()}, body.Poll.GetRingDigest(), reply)
	case *peerv1.Request_Announce:
		h.handle(caller, homing.Announce{Sequence: body.Announce.GetSequence(), Users: usersFromWire(body.Announce.GetUsers())}, "", reply)
	case *peerv1.Request_Goodbye:
		h.handle(caller, homing.Goodbye{}, "", reply)
	case *peerv1.Request_Deliver:
		h.answer(ctx, caller, leaf{body.Deliver.GetUser(), body.Deliver.GetRemainingMs(), age}, reply,
			func(ctx context.Context, a *peerv1.Answer) error { return h.deliver(ctx, body.Deliver, a) })
	case *peerv1.Request_Presence:
		h.answer(ctx, caller, leaf{body.Presence.GetUser(), body.Presence.GetRemainingMs(), age}, reply,
			func(ctx context.Context, a *peerv1.Answer) error { return h.list(ctx, body.Presence, a) })
	case *peerv1.Request_Disconnect:
		h.answer(ctx, caller, leaf{body.Disconnect.GetUser(), body.Disconnect.GetRemainingMs(), age}, reply,
			func(_ context.Context, a *peerv1.Answer) error {
				d := body.Disconnect
				if err := checkClose(d.Code, d.Reason); err != nil {
					return err
				}
				a.Sessions = h.b.closeSessions(d.User, d.Sessions, d.Code, d.Reason)
				return nil
			})
	case *peerv1.Request_Broadcast:
		h.answer(ctx, caller, leaf{"", body.Broadcast.GetRemainingMs(), age}, reply,
			func(ctx context.Context, a *peerv1.Answer) error {
				m, err := messageFromPeer(body.Broadcast.GetMessage(), "")
				if err != nil {
					return err
				}
				n, err := h.b.broadcastLocal(ctx, m)
				a.Count = uint32(n)
				return err
			})
	default:
		h.handle(caller, nil, "", reply)
	}
}

// handle answers what the node itself has the answer to. has is the digest of a ring that the caller knows.
func (h *home) handle(caller homing.Caller, r homing.Request, has string, reply func(*peerv1.Reply)) {
	var out homing.Reply
	var ok bool
	h.do(func(n *homing.Node, now homing.Instant) { out, ok = n.Handle(now, caller, r) })
	if !ok {
		return // fenced: the caller waits in vain, and asks whoever comes after
	}
	w := &peerv1.Reply{Callee: calleeToWire(out.Callee)}
	if out.Promise != nil {
		w.Body = &peerv1.Reply_Poll{Poll: promiseToWire(out.Promise, has)}
	}
	reply(w)
}

// leaf is what every question has.
type leaf struct {
	user         string
	milliseconds uint32        // from when it was sent; 0: the default
	age          time.Duration // since then
}

// left is what remains of its time: 0 where that is over, and a push may have been repeated elsewhere, and read.
func (q leaf) left() time.Duration {
	whole := time.Duration(q.milliseconds) * time.Millisecond
	if whole == 0 {
		whole = pushv1.DefaultTimeout
	}
	return max(whole-q.age, 0)
}

// answer has work answer a question about a user in a goroutine, within the question's time.
func (h *home) answer(ctx context.Context, caller homing.Caller, q leaf, reply func(*peerv1.Reply),
	work func(context.Context, *peerv1.Answer) error,
) {
	left := q.left()
	if left == 0 {
		h.b.metrics.outdated.Inc()
		return // nobody waits for a reply
	}
	var callee homing.Callee
	var ok bool
	a := &peerv1.Answer{}
	h.do(func(n *homing.Node, now homing.Instant) {
		if callee, ok = n.Admit(now, caller); ok && q.user != "" {
			user := homing.User(n.Ring().Hash(q.user))
			a.Openings = n.Openings(user) // before one looks: what opens in between shows in either
		}
	})
	if !ok {
		return
	}
	if callee.Refusal != homing.Accepted {
		reply(&peerv1.Reply{Callee: calleeToWire(callee)})
		return
	}
	if !h.b.calls.enter() {
		return
	}
	go func() {
		defer h.b.calls.leave()
		ctx, cancel := withTimeout(ctx, uint32(max(left.Milliseconds(), 1)))
		defer cancel()
		defer func() {
			if p := recover(); p != nil {
				h.b.log.Error("a peer's request made this member panic", zap.Any("panic", p), zap.Stack("stack"))
			}
		}()
		if err := work(ctx, a); err != nil {
			wrong := answerOf(nil, err)
			if a.Undecided = wrong.Undecided; wrong.Final != nil {
				a.Error = h.errorToWire(err)
			}
		}
		if len(a.Sessions) == 0 && q.user != "" { // after one has looked: what leaves in between shows here
			h.do(func(n *homing.Node, now homing.Instant) {
				a.MovingMs = uint32(n.Moving(now, homing.User(n.Ring().Hash(q.user))).Milliseconds())
			})
		}
		reply(&peerv1.Reply{Callee: calleeToWire(callee), Body: &peerv1.Reply_Answer{Answer: a}})
	}()
}

// deliver answers for this member's own sessions, or as the home for everybody's.
func (h *home) deliver(ctx context.Context, d *peerv1.Deliver, a *peerv1.Answer) error {
	m, err := messageFromPeer(d.GetMessage(), d.GetExceptSession())
	if err == nil {
		err = checkUser(d.User)
	}
	if err != nil {
		return err
	}
	if !d.Forward {
		span := h.span(tracing.Deliver, d)
		a.Sessions, err = h.b.deliverLocal(ctx, d.User, m)
		span.End(len(a.Sessions), err)
		return err
	}
	e := h.b.newErrand(d.User, m)
	e.question.Forwarded = true
	e.span = h.span(tracing.Home, d)
	h.settle(ctx, e)
	a.Sessions, a.Complete = e.question.Sessions, e.question.Certain
	err = e.err()
	e.span.End(len(a.Sessions), err)
	return err
}

// span begins one of a push that is traced where it came from: none begins here.
func (h *home) span(k tracing.Kind, d *peerv1.Deliver) tracing.Span {
	if d.Traceparent == "" {
		return tracing.Span{}
	}
	return h.b.tracer.Start(context.Background(), k, d.Traceparent)
}

func (h *home) list(ctx context.Context, p *peerv1.Presence, a *peerv1.Answer) error {
	if err := checkUser(p.User); err != nil {
		return err
	}
	if !p.Forward {
		a.Presence, a.Complete = h.b.sessionsShown(p.User), true
	} else {
		e := h.b.newErrand(p.User, nil)
		e.question.Forwarded = true
		h.settle(ctx, e)
		a.Presence, a.Complete = e.shown, e.question.Certain
		if err := e.err(); err != nil {
			return err
		}
	}
	for _, s := range a.Presence {
		a.Sessions = append(a.Sessions, s.Id)
	}
	return nil
}
