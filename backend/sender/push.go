package sender

import (
	"context"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/tracing"
)

// Message is what a user's sessions get.
type Message struct {
	Data   []byte
	Binary bool // else text, which must be UTF-8
	// ID makes repeats harmless: no session gets a message of the same id twice. Default: a new one for each push.
	ID string
	// ExceptSession leaves one session out: the one that the message came from.
	ExceptSession string
}

// Text makes a text message.
func Text(s string) Message { return Message{Data: []byte(s)} }

// Result is what became of a push to one user.
type Result struct {
	User      string
	Sessions  int    // that took it; 0 without Err: the user is offline
	MessageID string // to repeat the push with
	Err       error  // of this user, in lists of results
}

// Push delivers m to every session of user, behind the pushes to that user which this sender began earlier. An error means that the
// outcome is not certain (connect.CodeOf and [pushv1.DetailOf] tell more): push again with the same message id. ctx's deadline counts,
// 5 s where it has none. resource_exhausted, at once, means that 64 pushes to this user wait already.
func (s *Sender) Push(ctx context.Context, user string, m Message) (Result, error) {
	request := &pushv1.PushRequest{User: user, MessageId: m.ID, ExceptSession: m.ExceptSession}
	if m.Binary {
		request.Payload = &pushv1.PushRequest_Data{Data: m.Data}
	} else {
		request.Payload = &pushv1.PushRequest_Text{Text: string(m.Data)}
	}
	response, err := s.push(ctx, request)
	if err != nil {
		return Result{User: user, MessageID: request.MessageId, Err: err}, err
	}
	return Result{User: user, Sessions: int(response.Sessions), MessageID: response.MessageId}, nil
}

// push settles one request. It gives the request its message id, so that all tries carry the same.
func (s *Sender) push(ctx context.Context, r *pushv1.PushRequest) (*pushv1.PushResponse, error) {
	if r.MessageId == "" {
		r.MessageId = s.newMessageID()
	}
	ctx, end, err := s.begin(ctx, r.TimeoutMs)
	if err != nil {
		return nil, err
	}
	defer end()
	defer s.metrics.began()()
	span := s.tracer.Start(ctx, tracing.Push, r.Traceparent)
	response, err := s.pushInLine(ctx, r, span)
	span.Message(r.MessageId)
	span.End(int(response.GetSessions()), err)
	s.metrics.pushed(response.GetOutcome(), err != nil)
	return response, err
}

func (s *Sender) pushInLine(ctx context.Context, r *pushv1.PushRequest, span tracing.Span) (*pushv1.PushResponse, error) {
	if err := s.lines.await(ctx, r.User); err != nil {
		return nil, err
	}
	defer s.lines.leave(r.User)
	if r.Sender == "" { // what a member still carries of a push that was given up here must not come behind this one
		r.Sender, r.Sequence = s.prefix, s.last.Add(1)
	}
	return call(ctx, s, r.User, func(ctx context.Context, client pushv1.PushServiceClient) (*pushv1.PushResponse, error) {
		try := s.try(span, client)
		if try.IsOn() {
			r.Traceparent = try.Traceparent()
		}
		response, err := client.Push(ctx, connect.NewRequest(r))
		if err != nil {
			try.End(0, err)
			return nil, err
		}
		try.End(int(response.Msg.Sessions), nil)
		return response.Msg, nil
	})
}

// try begins the span of a call that a push takes; none where the push has none.
func (s *Sender) try(push tracing.Span, client pushv1.PushServiceClient) tracing.Span {
	name := ""
	if p, ok := client.(*pipelined); ok {
		name = p.member
	}
	return s.tracer.Child(push, tracing.Try, name)
}
