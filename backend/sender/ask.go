package sender

import (
	"context"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
)

// Broadcast delivers m to every session of every member. It returns the number of sessions that took it, and the members that did not
// answer, whose sessions may or may not have got it.
func (s *Sender) Broadcast(ctx context.Context, m Message) (sessions int, unanswered []string, err error) {
	request := &pushv1.BroadcastRequest{MessageId: m.ID}
	if m.Binary {
		request.Payload = &pushv1.BroadcastRequest_Data{Data: m.Data}
	} else {
		request.Payload = &pushv1.BroadcastRequest_Text{Text: string(m.Data)}
	}
	response, err := s.broadcast(ctx, request)
	if err != nil {
		return 0, nil, err
	}
	return int(response.Sessions), response.Unanswered, nil
}

func (s *Sender) broadcast(ctx context.Context, r *pushv1.BroadcastRequest) (*pushv1.BroadcastResponse, error) {
	if r.MessageId == "" {
		r.MessageId = s.newMessageID() // one over all tries
	}
	ctx, cancel := withTimeout(ctx, r.TimeoutMs)
	defer cancel()
	return call(ctx, s, "", func(ctx context.Context, client pushv1.PushServiceClient) (*pushv1.BroadcastResponse, error) {
		response, err := client.Broadcast(ctx, connect.NewRequest(r))
		if err != nil {
			return nil, err
		}
		return response.Msg, nil
	})
}

// Presence lists the open sessions of users, in the order asked. Where a user's Error is set, the list may be incomplete.
func (s *Sender) Presence(ctx context.Context, users ...string) ([]*pushv1.UserPresence, error) {
	response, err := s.presence(ctx, &pushv1.PresenceRequest{Users: users})
	return response.GetUsers(), err
}

func (s *Sender) presence(ctx context.Context, r *pushv1.PresenceRequest) (*pushv1.PresenceResponse, error) {
	ctx, cancel := withTimeout(ctx, r.TimeoutMs)
	defer cancel()
	return call(ctx, s, "", func(ctx context.Context, client pushv1.PushServiceClient) (*pushv1.PresenceResponse, error) {
		response, err := client.Presence(ctx, connect.NewRequest(r))
		if err != nil {
			return nil, err
		}
		return response.Msg, nil
	})
}

// Disconnect closes the sessions that user has now, those of one device where device is not empty, and returns how many there were.
// code 0 is 1008, an empty reason "kick".
func (s *Sender) Disconnect(ctx context.Context, user, device string, code int, reason string) (sessions int, err error) {
	response, err := s.disconnect(ctx, &pushv1.DisconnectRequest{User: user, Device: device, Code: uint32(code), Reason: reason})
	return int(response.GetSessions()), err
}

func (s *Sender) disconnect(ctx context.Context, r *pushv1.DisconnectRequest) (*pushv1.DisconnectResponse, error) {
	ctx, cancel := withTimeout(ctx, r.TimeoutMs)
	defer cancel()
	return call(ctx, s, r.User, func(ctx context.Context, client pushv1.PushServiceClient) (*pushv1.DisconnectResponse, error) {
		response, err := client.Disconnect(ctx, connect.NewRequest(r))
		if err != nil {
			return nil, err
		}
		return response.Msg, nil
	})
}
