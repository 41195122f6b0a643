package sender

import (
	"context"
	"fmt"
	"sync"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/tracing"
)

// Bounds of PushMany's work.
const (
	manyPerCall = 10_000  // users in one call to a member, which is as many as it takes
	manyBytes   = 1 << 20 // of their ids in one call
	manyCalls   = 16      // calls at once
)

// PushMany delivers one message to many users, with one call to each member for up to 10,000 of them whose ids take up to 1 MiB, and
// returns the results in the order asked. Users to whom a push is under way get theirs behind it and hold up no others. The error is that of the whole: a
// misuse, or no way to find the members; each user's own stands in its result.
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
	ctx, end, err := s.begin(ctx, r.TimeoutMs)
	if err != nil {
		return nil, err
	}
	defer end()
	defer s.metrics.began()()
	if s.via == nil {
		if _, err := s.snapshot(ctx); err != nil {
			return nil, err
		}
	}
	span := s.tracer.Start(ctx, tracing.Push, r.Traceparent)
	span.Message(r.MessageId)
	span.Users(len(r.Users))
	results := make([]*pushv1.PushResult, len(r.Users))
	fail := func(i int, err error) {
		results[i] = &pushv1.PushResult{User: r.Users[i], MessageId: r.MessageId, Error: pushv1.ResultError(err)}
	}
	places, refused := s.lines.joinAll(r.Users)
	for i, err := range refused {
		fail(i, err)
	}
	var wg sync.WaitGroup
	gate := make(chan struct{}, manyCalls)
	for places.waiting > 0 {
		next, err := places.next(ctx)
		if err != nil {
			for _, i := range next {
				fail(i, err)
			}
			break
		}
		for _, group := range s.groups(r.Users, next) {
			gate <- struct{}{}
			wg.Go(func() {
				defer func() { <-gate }()
				s.pushGroup(ctx, r, group, results, places, span)
			})
		}
	}
	wg.Wait()
	sessions := 0
	for _, r := range results {
		sessions += int(r.Sessions)
		s.metrics.pushed(r.Outcome, r.Error != nil)
	}
	span.End(sessions, nil)
	return results, nil
}

// groups splits those users, by their places in the list, into calls: each to one member, the home of all its users.
func (s *Sender) groups(users []string, which []int) [][]int {
	byHome := make(map[string][]int)
	if s.via != nil {
		byHome[""] = which
	} else {
		ring := s.view.Snapshot().Ring
		for _, i := range which {
			home := ring.Owner(users[i])
			byHome[home] = append(byHome[home], i)
		}
	}
	var groups [][]int
	for _, group := range byHome {
		groups = append(groups, split(users, group)...)
	}
	return groups
}

// split cuts a list of users, by their places, into parts that fit into one call.
func split(users []string, group []int) (parts [][]int) {
	begin, size := 0, 0
	for n, i := range group {
		size += len(users[i])
		if n-begin == manyPerCall || size > manyBytes && n > begin {
			parts = append(parts, group[begin:n])
			begin, size = n, len(users[i])
		}
	}
	return append(parts, group[begin:])
}

// pushGroup settles the users of that group, again and again those whose result says to retry. Each leaves its line once it is settled.
func (s *Sender) pushGroup(ctx context.Context, r *pushv1.PushManyRequest, group []int, results []*pushv1.PushResult, places *places, span tracing.Span) {
	left := group
	sequence := s.last.Add(1) // drawn in the users' turn, so that it is above those of the pushes ahead of it
	_, err := call(ctx, s, r.Users[group[0]], func(ctx context.Context, client pushv1.PushServiceClient) (struct{}, error) {
		part := &pushv1.PushManyRequest{
			Users: pick(r.Users, left), Payload: r.Payload, MessageId: r.MessageId, TimeoutMs: r.TimeoutMs, Sender: s.prefix, Sequence: sequence,
			Traceparent: r.Traceparent,
		}
		try := s.try(span, client)
		if try.IsOn() {
			try.Users(len(left))
			part.Traceparent = try.Traceparent()
		}
		response, err := client.PushMany(ctx, connect.NewRequest(part))
		try.End(sessionsOf(response), err)
		if err != nil {
			return struct{}{}, err
		}
		if got, want := len(response.Msg.Results), len(left); got != want {
			return struct{}{}, connect.NewError(connect.CodeInternal, fmt.Errorf("%d results for %d users", got, want))
		}
		var again, done []int
		err = nil
		for n, result := range response.Msg.Results {
			i := left[n]
			e := partialError(result.Error)
			if e != nil {
				again, err = append(again, i), e
				result.Sessions = max(result.Sessions, results[i].GetSessions())
			} else {
				done = append(done, i)
			}
			results[i] = result
		}
		places.leave(done)
		left = again
		return struct{}{}, err
	})
	for _, i := range left {
		if results[i] == nil {
			results[i] = &pushv1.PushResult{User: r.Users[i], MessageId: r.MessageId, Error: pushv1.ResultError(err)}
		}
	}
	places.leave(left)
}

// sessionsOf is how many were reached, for the trace.
func sessionsOf(response *connect.Response[pushv1.PushManyResponse]) (sessions int) {
	if response == nil {
		return 0
	}
	for _, r := range response.Msg.Results {
		sessions += int(r.Sessions)
	}
	return sessions
}

// partialError is the error of one user in an answer for many, if it says to retry; else nil.
func partialError(e *pushv1.Error) error {
	if err := e.Err(); err != nil && isRetryable(partial{err}) {
		return partial{err}
	}
	return nil
}

// indices lists 0 to n-1.
func indices(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

func pick(users []string, which []int) []string {
	list := make([]string, len(which))
	for n, i := range which {
		list[n] = users[i]
	}
	return list
}
