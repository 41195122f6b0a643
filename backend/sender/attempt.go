package sender

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/discovery"
)

const (
	maxCandidates = 5                      // members tried for one user before the ring is looked at anew
	backoffFirst  = 50 * time.Millisecond  // before the second round; doubled for each, with full jitter
	backoffMost   = 500 * time.Millisecond // it never waits longer than this
)

// call makes one call for user ("": any member will do) until a member has settled it or ctx ends. A member that is away is
// passed over for the next; after what is not settled, the walk begins anew a little later.
func call[R any](ctx context.Context, s *Sender, user string, try func(context.Context, pushv1.PushServiceClient) (R, error)) (R, error) {
	var none R
	var last error
	if err := s.begin(); err != nil {
		return none, err
	}
	defer s.calls.Done()
	for backoff := backoffFirst; ; backoff = min(2*backoff, backoffMost) {
		candidates, err := s.candidates(ctx, user)
		if err != nil {
			return none, err
		}
		if len(candidates) == 0 {
			last = pushv1.NewError(connect.CodeUnavailable, &pushv1.ErrorDetail{Reason: pushv1.Reason_NO_MEMBERS},
				errors.New("no member of the service is up"))
		}
		for _, client := range candidates {
			result, err := try(ctx, client)
			if err == nil {
				return result, nil
			}
			if last != nil && ctx.Err() != nil {
				return none, last // what ctx's end did to the last call explains less than what came before
			}
			if !isRetryable(err) {
				return none, err
			}
			last = err
			if connect.CodeOf(err) == connect.CodeAborted {
				break // who is asked makes no difference; time does
			}
		}
		pause := time.NewTimer(time.Duration(mathrand.Int64N(int64(backoff))))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return none, last
		}
	}
}

// isRetryable tells whether another try, here or at another member, may settle the call. While ctx lasts, a call that was cancelled was so by
// the member's end, and an unknown error that no member sent is the connection's.
func isRetryable(err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable, connect.CodeAborted, connect.CodeCanceled:
		return true
	case connect.CodeUnknown:
		return !connect.IsWireError(err)
	default:
		return false
	}
}

// candidates lists whom to call for user, best first.
func (s *Sender) candidates(ctx context.Context, user string) ([]pushv1.PushServiceClient, error) {
	if s.via != nil {
		return []pushv1.PushServiceClient{s.via}, nil
	}
	snapshot, err := s.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	if user == "" {
		return s.anyMembers(snapshot), nil
	}
	var list []pushv1.PushServiceClient
	for id := range snapshot.Ring.Successors(user) {
		m, _ := snapshot.Member(id)
		if m.RPCAddr == "" {
			return nil, pushv1.NewError(connect.CodeUnimplemented, &pushv1.ErrorDetail{Member: id},
				fmt.Errorf("member %s has no push service: it does not use package backend", id))
		}
		if list = append(list, s.client(baseURL(m))); len(list) == maxCandidates {
			break
		}
	}
	return list, nil
}

// anyMembers lists a few members that are up, in random order.
func (s *Sender) anyMembers(snapshot *discovery.Snapshot) []pushv1.PushServiceClient {
	var list []pushv1.PushServiceClient
	for _, i := range mathrand.Perm(len(snapshot.Members)) {
		if m := snapshot.Members[i]; m.RPCAddr != "" && m.InRing() && len(list) < maxCandidates {
			list = append(list, s.client(baseURL(m)))
		}
	}
	return list
}

// randomPrefix makes the message ids of one sender unlike those of any other.
func randomPrefix() string { return rand.Text()[:10] + "-" }
