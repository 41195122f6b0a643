package sender

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
)

// Status asks one member how it is: what it holds, how many pushes it gets, which sessions ended last. No other can answer for it, so
// nothing is retried.
func (s *Sender) Status(ctx context.Context, r *pushv1.StatusRequest) (*pushv1.StatusResponse, error) {
	return one(ctx, s, r.Member, r, pushv1.RingServiceClient.Status)
}

// Drain has a member leave the ring and send its sessions away at a pace, as SIGTERM does; its process goes on, empty, until it is
// stopped. It returns how many sessions there were to send away.
func (s *Sender) Drain(ctx context.Context, member string) (sessions int, err error) {
	response, err := s.drain(ctx, &pushv1.DrainRequest{Member: member})
	return int(response.GetSessions()), err
}

func (s *Sender) drain(ctx context.Context, r *pushv1.DrainRequest) (*pushv1.DrainResponse, error) {
	return one(ctx, s, r.Member, r, pushv1.RingServiceClient.Drain)
}

// one puts a question to the member of that id, or with Config.Via to the process there, which passes it on.
func one[Q, A any](ctx context.Context, s *Sender, id string, question *Q,
	ask func(pushv1.RingServiceClient, context.Context, *connect.Request[Q]) (*connect.Response[A], error)) (*A, error) {
	ctx, end, err := s.begin(ctx, 0)
	if err != nil {
		return nil, err
	}
	defer end()
	to := s.via
	if to == nil {
		snapshot, err := s.snapshot(ctx)
		if err != nil {
			return nil, err
		}
		m, known := snapshot.Member(id)
		switch {
		case id == "":
			return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("no member; name the one that is meant"))
		case !known:
			return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("no member %q is known", id))
		case m.RPCAddr == "":
			return nil, connect.NewError(connect.CodeUnimplemented, fmt.Errorf("member %q has no RPC address: it does not use our package", id))
		}
		to = s.member(m)
	}
	response, err := ask(to.ring, ctx, connect.NewRequest(question))
	if err != nil {
		return nil, err
	}
	return response.Msg, nil
}

func (v service) Status(ctx context.Context, r *connect.Request[pushv1.StatusRequest]) (*connect.Response[pushv1.StatusResponse], error) {
	return respond(v.s.Status(ctx, r.Msg))
}

func (v service) Drain(ctx context.Context, r *connect.Request[pushv1.DrainRequest]) (*connect.Response[pushv1.DrainResponse], error) {
	return respond(v.s.drain(ctx, r.Msg))
}
