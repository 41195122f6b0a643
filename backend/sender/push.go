package sender

import (
	"context"
	"fmt"
	"sync"

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

// Push delivers m to every session of user. An error means that the outcome is not certain (connect.CodeOf and [pushv1.DetailOf]
// tell more): push again with the same message id. ctx's deadline counts, 5 s where it has none.
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
	ctx, cancel := withTimeout(ctx, r.TimeoutMs)
	defer cancel()
	return call(ctx, s, r.User, func(ctx context.Context, client pushv1.PushServiceClient) (*pushv1.PushResponse, error) {
		response, err := client.Push(ctx, connect.NewRequest(r))
		if err != nil {
			return nil, err
		}
		return response.Msg, nil
	})
}

// Bounds of PushMany's work.
const (
	manyPerCall = 1_000 // users in one call to a member
	manyCalls   = 16    // calls at once
)

// PushMany delivers one message to many users, with one call to each member for up to 1,000 of them, and returns the results in the order
// asked. The error is that of the whole: a misuse, or no way to find the members; each user's own stands in its result.
func (s *Sender) PushMany(ctx context.Context, users []string, m Message) ([]Result, error) {
	request := &pushv1.PushManyRequest{Users: users, MessageId: m.ID}
	if m.Binary {
		request.Payload = &pushv1.PushManyRequest_Data{Data: m.Data}
	} else {
		request.Payload = &pushv1.PushManyRequest_Text{Text: string(m.Data)}
	}
	list, err := s.pushMany(ctx, request)
	if err != nil {
		return nil, err
	}
	results := make([]Result, len(list))
	for i, r := range list {
		results[i] = Result{User: r.User, Sessions: int(r.Sessions), MessageID: r.MessageId, Err: r.Error.Err()}
	}
	return results, nil
}

func (s *Sender) pushMany(ctx context.Context, r *pushv1.PushManyRequest) ([]*pushv1.PushResult, error) {
	if r.MessageId == "" {
		r.MessageId = s.newMessageID()
	}
	ctx, cancel := withTimeout(ctx, r.TimeoutMs)
	defer cancel()
	groups, err := s.groups(ctx, r.Users)
	if err != nil {
		return nil, err
	}
	results := make([]*pushv1.PushResult, len(r.Users))
	var wg sync.WaitGroup
	gate := make(chan struct{}, manyCalls)
	for _, group := range groups {
		gate <- struct{}{}
		wg.Go(func() {
			defer func() { <-gate }()
			s.pushGroup(ctx, r, group, results)
		})
	}
	wg.Wait()
	return results, nil
}

// groups splits the users, by their places in the list, into calls: each to one member, the home of all its users.
func (s *Sender) groups(ctx context.Context, users []string) ([][]int, error) {
	byHome := make(map[string][]int)
	if s.via != nil {
		for i := range users {
			byHome[""] = append(byHome[""], i)
		}
	} else {
		snapshot, err := s.snapshot(ctx)
		if err != nil {
			return nil, err
		}
		for i, user := range users {
			home := snapshot.Ring.Owner(user)
			byHome[home] = append(byHome[home], i)
		}
	}
	var groups [][]int
	for _, group := range byHome {
		for len(group) > manyPerCall {
			groups, group = append(groups, group[:manyPerCall]), group[manyPerCall:]
		}
		groups = append(groups, group)
	}
	return groups, nil
}

// pushGroup settles the users at the places in group, again and again those whose result says to retry.
func (s *Sender) pushGroup(ctx context.Context, r *pushv1.PushManyRequest, group []int, results []*pushv1.PushResult) {
	left := group
	_, err := call(ctx, s, r.Users[group[0]], func(ctx context.Context, client pushv1.PushServiceClient) (struct{}, error) {
		part := &pushv1.PushManyRequest{Payload: r.Payload, MessageId: r.MessageId, TimeoutMs: r.TimeoutMs}
		for _, i := range left {
			part.Users = append(part.Users, r.Users[i])
		}
		response, err := client.PushMany(ctx, connect.NewRequest(part))
		if err != nil {
			return struct{}{}, err
		}
		if got, want := len(response.Msg.Results), len(left); got != want {
			return struct{}{}, connect.NewError(connect.CodeInternal, fmt.Errorf("%d results for %d users", got, want))
		}
		var again []int
		var last error
		for n, result := range response.Msg.Results {
			results[left[n]] = result
			if err := result.Error.Err(); err != nil && isRetryable(err) {
				again, last = append(again, left[n]), err
			}
		}
		left = again
		return struct{}{}, last
	})
	for _, i := range left {
		if results[i] == nil {
			results[i] = &pushv1.PushResult{User: r.Users[i], MessageId: r.MessageId, Error: pushv1.ResultError(err)}
		}
	}
}
