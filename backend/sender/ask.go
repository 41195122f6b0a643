package sender

import (
	"context"
	"fmt"
	"slices"

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
	ctx, end, err := s.begin(ctx, r.TimeoutMs)
	if err != nil {
		return nil, err
	}
	defer end()
	return call(ctx, s, "", func(ctx context.Context, client pushv1.PushServiceClient) (*pushv1.BroadcastResponse, error) {
		response, err := client.Broadcast(ctx, connect.NewRequest(r))
		if err != nil {
			return nil, err
		}
		return response.Msg, nil
	})
}

// Presence lists the open sessions of users, in the order asked. Users whose list is not certain are asked for again until ctx ends (5 s
// where it has no deadline); those left then have their Error set, and the list may be incomplete.
func (s *Sender) Presence(ctx context.Context, users ...string) ([]*pushv1.UserPresence, error) {
	ctx, cancel := withTimeout(ctx, 0)
	defer cancel()
	var list []*pushv1.UserPresence
	for some := range slices.Chunk(users, presencePerCall) {
		response, err := s.presence(ctx, &pushv1.PresenceRequest{Users: some})
		if err != nil {
			return nil, err
		}
		list = append(list, response.Users...)
	}
	return list, nil
}

const presencePerCall = 1_000 // users, which is as many as a member takes

func (s *Sender) presence(ctx context.Context, r *pushv1.PresenceRequest) (*pushv1.PresenceResponse, error) {
	ctx, end, err := s.begin(ctx, r.TimeoutMs)
	if err != nil {
		return nil, err
	}
	defer end()
	known := make([]*pushv1.UserPresence, len(r.Users))
	left := indices(len(r.Users))
	_, err = call(ctx, s, "", func(ctx context.Context, client pushv1.PushServiceClient) (struct{}, error) {
		part := &pushv1.PresenceRequest{Users: pick(r.Users, left), TimeoutMs: r.TimeoutMs}
		response, err := client.Presence(ctx, connect.NewRequest(part))
		if err != nil {
			return struct{}{}, err
		}
		if got, want := len(response.Msg.Users), len(left); got != want {
			return struct{}{}, connect.NewError(connect.CodeInternal, fmt.Errorf("%d lists for %d users", got, want))
		}
		var again []int
		err = nil
		for n, user := range response.Msg.Users {
			known[left[n]] = user
			if e := partialError(user.Error); e != nil {
				again, err = append(again, left[n]), e
			}
		}
		left = again
		return struct{}{}, err
	})
	for _, i := range left {
		if known[i] == nil {
			return nil, err // no member has answered
		}
	}
	return &pushv1.PresenceResponse{Users: known}, nil
}

// Disconnect closes the sessions that user has now, those of one device where device is not empty, and returns how many there were.
// code 0 is 1008, an empty reason "kick".
func (s *Sender) Disconnect(ctx context.Context, user, device string, code int, reason string) (sessions int, err error) {
	response, err := s.disconnect(ctx, &pushv1.DisconnectRequest{User: user, Device: device, Code: uint32(code), Reason: reason})
	return int(response.GetSessions()), err
}

func (s *Sender) disconnect(ctx context.Context, r *pushv1.DisconnectRequest) (*pushv1.DisconnectResponse, error) {
	ctx, end, err := s.begin(ctx, r.TimeoutMs)
	if err != nil {
		return nil, err
	}
	defer end()
	return call(ctx, s, r.User, func(ctx context.Context, client pushv1.PushServiceClient) (*pushv1.DisconnectResponse, error) {
		response, err := client.Disconnect(ctx, connect.NewRequest(r))
		if err != nil {
			return nil, err
		}
		return response.Msg, nil
	})
}
