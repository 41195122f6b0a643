package backend

import (
	"context"
	"errors"
	"io"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/identity"
	"github.com/selvedge/selvedge/internal/tracing"
)

// Bounds of one request; a sender splits what is larger.
const (
	maxPushUsers     = 10_000
	maxPresenceUsers = 1_000
	maxRequestBytes  = 16 << 20 // above: resource_exhausted
	pushManyWidth    = 1024     // users of one PushMany that are waited for at once, each by a goroutine
)

// pushService is what senders reach. It is open to whoever has the RPC token.
type pushService struct{ b *Backend }

func (p pushService) Push(ctx context.Context, r *connect.Request[pushv1.PushRequest]) (*connect.Response[pushv1.PushResponse], error) {
	ctx, cancel := withTimeout(ctx, r.Msg.TimeoutMs)
	defer cancel()
	r.Msg.Traceparent = tracing.Parent(r.Msg.Traceparent, r.Header())
	response, err := p.push(ctx, r.Msg)
	if err != nil {
		return nil, p.b.rpcError(err)
	}
	return connect.NewResponse(response), nil
}

func (p pushService) push(ctx context.Context, r *pushv1.PushRequest) (*pushv1.PushResponse, error) {
	e, err := p.errand(r)
	if err != nil {
		return nil, err
	}
	p.b.home.settle(ctx, e)
	sessions, err := p.b.pushed(e)
	if err != nil {
		return nil, err
	}
	return &pushv1.PushResponse{Outcome: outcomeOf(sessions), Sessions: uint32(sessions), MessageId: e.message.id}, nil
}

// errand checks a request and makes an errand of it.
func (p pushService) errand(r *pushv1.PushRequest) (*errand, error) {
	m, err := p.message(r.GetMessageId(), r.GetPayload() == nil, r.GetText(), r.GetData(), isData(r.GetPayload()))
	if err != nil {
		return nil, err
	}
	if err := checkUser(r.User); err != nil {
		return nil, err
	}
	m.except, m.sender, m.sequence = r.ExceptSession, r.Sender, r.Sequence
	e := p.b.newErrand(r.User, m)
	e.span = p.b.tracer.Start(context.Background(), tracing.Receive, r.Traceparent)
	return e, nil
}

func (p pushService) PushMany(ctx context.Context, r *connect.Request[pushv1.PushManyRequest]) (*connect.Response[pushv1.PushManyResponse], error) {
	users := r.Msg.Users
	if len(users) > maxPushUsers {
		return nil, invalid("%d users; want at most %d in one call", len(users), maxPushUsers)
	}
	_, data := r.Msg.Payload.(*pushv1.PushManyRequest_Data)
	m, err := p.message(r.Msg.MessageId, r.Msg.Payload == nil, r.Msg.GetText(), r.Msg.GetData(), data)
	if err != nil {
		return nil, err
	}
	m.sender, m.sequence = r.Msg.Sender, r.Msg.Sequence
	ctx, cancel := withTimeout(ctx, r.Msg.TimeoutMs)
	defer cancel()
	span := p.b.tracer.Start(context.Background(), tracing.Receive, tracing.Parent(r.Msg.Traceparent, r.Header()))
	span.Message(m.id)
	span.Users(len(users))
	results := p.b.pushMany(ctx, users, m, span)
	span.End(sessionsOf(results), nil)
	return connect.NewResponse(&pushv1.PushManyResponse{Results: results}), nil
}

// pushMany hands m to all users before it waits for any: a user whose client is slow holds up no others. Nearly every push settles at once,
// with nobody asked, so the errands of one batch serve the next.
func (b *Backend) pushMany(ctx context.Context, users []string, m *message, span tracing.Span) []*pushv1.PushResult {
	m.frame() // compiled once for all, and before it is shared
	b.recent.group(m, len(users))
	list := make([]pushv1.PushResult, len(users))
	results := make([]*pushv1.PushResult, len(users))
	settled := func(e *errand) {
		sessions, err := b.pushed(e)
		e.result.Sessions = uint32(sessions)
		if err != nil {
			e.result.Error = b.resultError(err)
			return
		}
		e.result.Outcome = outcomeOf(sessions)
	}
	var slow []*errand
	room := make([]errand, min(len(users), batchErrands))
	batch := make([]*errand, 0, len(room))
	for first := 0; first < len(users); first += batchErrands {
		batch = batch[:0]
		start := time.Now()
		for i := first; i < min(first+batchErrands, len(users)); i++ {
			r := &list[i]
			r.User, r.MessageId, results[i] = users[i], m.id, r
			if err := checkUser(r.User); err != nil {
				r.Error = b.resultError(err)
				continue
			}
			e := &room[i-first]
			b.setErrand(e, start, r.User, m)
			e.ctx, e.result = ctx, r
			e.span, e.sharesSpan = span, true
			batch = append(batch, e)
		}
		b.home.settleBatch(batch)
		inUse := false
		for _, e := range batch {
			if b.isQuick(e) {
				settled(e)
				inUse = inUse || e.lent
			} else {
				slow = append(slow, e)
				inUse = true
			}
		}
		if inUse {
			room = make([]errand, batchErrands)
		} else {
			clear(room)
		}
	}
	each(len(slow), pushManyWidth, func(i int) {
		b.home.await(slow[i])
		settled(slow[i])
	})
	return results
}

// sessionsOf is how many were reached, for the trace.
func sessionsOf(results []*pushv1.PushResult) (sessions int) {
	for _, r := range results {
		sessions += int(r.Sessions)
	}
	return sessions
}

// PushStream takes one push after the other: what one stream sends to one user arrives in that order.
func (p pushService) PushStream(ctx context.Context, stream *connect.BidiStream[pushv1.PushRequest, pushv1.PushResult]) error {
	for {
		r, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !p.b.calls.enter() {
			return errStopped
		}
		result := &pushv1.PushResult{User: r.User, MessageId: r.MessageId}
		one, cancel := withTimeout(ctx, r.TimeoutMs)
		response, err := p.push(one, r)
		cancel()
		if err != nil {
			result.Error = p.b.resultError(err)
		} else {
			result.Outcome, result.Sessions, result.MessageId = response.Outcome, response.Sessions, response.MessageId
		}
		err = stream.Send(result)
		p.b.calls.leave()
		if err != nil {
			return err
		}
	}
}

func (p pushService) Broadcast(ctx context.Context, r *connect.Request[pushv1.BroadcastRequest]) (*connect.Response[pushv1.BroadcastResponse], error) {
	_, data := r.Msg.Payload.(*pushv1.BroadcastRequest_Data)
	m, err := p.message(r.Msg.MessageId, r.Msg.Payload == nil, r.Msg.GetText(), r.Msg.GetData(), data)
	if err != nil {
		return nil, err
	}
	ctx, cancel := withTimeout(ctx, r.Msg.TimeoutMs)
	defer cancel()
	e := &errand{message: m}
	e.question.Everywhere = true
	p.b.home.settle(ctx, e)
	if err := e.err(); err != nil && !errors.Is(err, ErrUnsettled) {
		return nil, p.b.rpcError(err)
	}
	response := &pushv1.BroadcastResponse{Sessions: uint32(e.count), MessageId: m.id}
	for _, silent := range e.question.Silent {
		response.Unanswered = append(response.Unanswered, silent.Member)
	}
	return connect.NewResponse(response), nil
}

func (p pushService) Presence(ctx context.Context, r *connect.Request[pushv1.PresenceRequest]) (*connect.Response[pushv1.PresenceResponse], error) {
	if len(r.Msg.Users) > maxPresenceUsers {
		return nil, invalid("%d users; want at most %d in one call", len(r.Msg.Users), maxPresenceUsers)
	}
	for _, user := range r.Msg.Users {
		if err := checkUser(user); err != nil {
			return nil, err
		}
	}
	ctx, cancel := withTimeout(ctx, r.Msg.TimeoutMs)
	defer cancel()
	return connect.NewResponse(&pushv1.PresenceResponse{Users: p.b.presence(ctx, r.Msg.Users)}), nil
}

func (p pushService) Disconnect(ctx context.Context, r *connect.Request[pushv1.DisconnectRequest]) (*connect.Response[pushv1.DisconnectResponse], error) {
	if err := checkUser(r.Msg.User); err != nil {
		return nil, err
	}
	if err := checkClose(r.Msg.Code, r.Msg.Reason); err != nil {
		return nil, err
	}
	ctx, cancel := withTimeout(ctx, r.Msg.TimeoutMs)
	defer cancel()
	n, err := p.b.disconnect(ctx, r.Msg)
	if err != nil {
		return nil, p.b.rpcError(alsoReached(err, n))
	}
	return connect.NewResponse(&pushv1.DisconnectResponse{Sessions: uint32(n)}), nil
}

func (p pushService) Show(context.Context, *connect.Request[pushv1.ShowRequest]) (*connect.Response[pushv1.ShowResponse], error) {
	return connect.NewResponse(pushv1.Show(p.b.view.Snapshot())), nil
}

// Bury comes from an operator who knows that a member's host is gone for good.
func (p pushService) Bury(_ context.Context, r *connect.Request[pushv1.BuryRequest]) (*connect.Response[pushv1.BuryResponse], error) {
	if r.Msg.Member == p.b.cfg.ID {
		return nil, invalid("member %q is the one that was asked, and it lives", r.Msg.Member)
	}
	known := p.b.home.bury(r.Msg.Member)
	if known {
		p.b.log.Warn("buried by hand", zap.String("peer", r.Msg.Member))
	}
	return connect.NewResponse(&pushv1.BuryResponse{Known: known}), nil
}

// message checks a request's payload.
func (p pushService) message(id string, none bool, text string, data []byte, binary bool) (*message, error) {
	if none {
		return nil, invalid("no payload; set text or data")
	}
	if len(id) > maxMessageID {
		return nil, invalid("message_id has %d bytes; want at most %d", len(id), maxMessageID)
	}
	if id == "" {
		id = p.b.newMessageID()
	}
	if binary {
		return &message{Message: Message{Data: data, Binary: true}, id: id}, nil
	}
	return &message{Message: Text(text), id: id}, nil
}

const maxMessageID = 128

func isData(payload any) bool {
	_, data := payload.(*pushv1.PushRequest_Data)
	return data
}

func checkUser(user string) error {
	if err := identity.CheckUserID(user); err != nil {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	return nil
}
