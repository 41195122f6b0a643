package sender

import (
	"context"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
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
	response, err := s.pushInLine(ctx, r)
	s.metrics.pushed(response.GetOutcome(), err != nil)
	return response, err
}

func (s *Sender) pushInLine(ctx context.Context, r *pushv1.PushRequest) (*pushv1.PushResponse, error) {
	if err := s.lines.await(ctx, r.User); err != nil {
		return nil, err
	}
	defer s.lines.leave(r.User)
	if r.Sender == "" { // what a member still carries of a push that was given up here must not come behind this one
		r.Sender, r.Sequence = s.prefix, s.last.Add(1)
	}
	return call(ctx, s, r.User, func(ctx context.Context, client pushv1.PushServiceClient) (*pushv1.PushResponse, error) {
		response, err := client.Push(ctx, connect.NewRequest(r))
		if err != nil {
			return nil, err
		}
		return response.Msg, nil
	})
}
