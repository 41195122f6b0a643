package sender

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/rpc"
	"github.com/selvedge/selvedge/internal/tracing"
)

// Handler serves the push and ring services by this sender: an edge's admin port passes pushes on with it.
func (s *Sender) Handler() http.Handler {
	mux := http.NewServeMux()
	inTime := connect.WithInterceptors(connect.UnaryInterceptorFunc(answerInTime))
	mux.Handle(pushv1.NewPushServiceHandler(service{s}, rpc.JSON(), inTime))
	mux.Handle(pushv1.NewRingServiceHandler(service{s}, rpc.JSON(), inTime))
	return mux
}

const answerTime = 50 * time.Millisecond // or a tenth of the caller's patience, where that is less

// answerInTime ends a call a little before its caller's patience does, so that the caller learns what is known rather than that time ran out.
func answerInTime(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		if deadline, ok := ctx.Deadline(); ok {
			earlier, cancel := context.WithDeadline(ctx, deadline.Add(-min(time.Until(deadline)/10, answerTime)))
			defer cancel()
			ctx = earlier
		}
		return next(ctx, r)
	}
}

// service is the push service as others see it, by way of a sender.
type service struct{ s *Sender }

func (v service) Push(ctx context.Context, r *connect.Request[pushv1.PushRequest]) (*connect.Response[pushv1.PushResponse], error) {
	r.Msg.Traceparent = tracing.Parent(r.Msg.Traceparent, r.Header())
	return respond(v.s.push(ctx, r.Msg))
}

func (v service) PushMany(ctx context.Context, r *connect.Request[pushv1.PushManyRequest]) (*connect.Response[pushv1.PushManyResponse], error) {
	if n := len(r.Msg.Users); n > manyPerCall {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%d users; want at most %d in one call", n, manyPerCall))
	}
	r.Msg.Traceparent = tracing.Parent(r.Msg.Traceparent, r.Header())
	results, err := v.s.pushMany(ctx, r.Msg)
	return respond(&pushv1.PushManyResponse{Results: results}, err)
}

func (v service) PushStream(ctx context.Context, stream *connect.BidiStream[pushv1.PushRequest, pushv1.PushResult]) error {
	for {
		r, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		response, err := v.s.push(ctx, r)
		result := &pushv1.PushResult{User: r.User, MessageId: r.MessageId, Error: pushv1.ResultError(err)}
		if err == nil {
			result.Outcome, result.Sessions = response.Outcome, response.Sessions
		}
		if err := stream.Send(result); err != nil {
			return err
		}
	}
}

func (v service) Broadcast(ctx context.Context, r *connect.Request[pushv1.BroadcastRequest]) (*connect.Response[pushv1.BroadcastResponse], error) {
	return respond(v.s.broadcast(ctx, r.Msg))
}

func (v service) Presence(ctx context.Context, r *connect.Request[pushv1.PresenceRequest]) (*connect.Response[pushv1.PresenceResponse], error) {
	return respond(v.s.presence(ctx, r.Msg))
}

func (v service) Disconnect(ctx context.Context, r *connect.Request[pushv1.DisconnectRequest]) (*connect.Response[pushv1.DisconnectResponse], error) {
	return respond(v.s.disconnect(ctx, r.Msg))
}

func (v service) Show(ctx context.Context, _ *connect.Request[pushv1.ShowRequest]) (*connect.Response[pushv1.ShowResponse], error) {
	ctx, cancel := withTimeout(ctx, 0)
	defer cancel()
	return respond(v.s.Ring(ctx))
}

// respond passes a member's answer on. Errors go out as this process's own, but keep their code and detail.
func respond[T any](answer *T, err error) (*connect.Response[T], error) {
	if err != nil {
		return nil, pushv1.NewError(connect.CodeOf(err), pushv1.DetailOf(err), message(err))
	}
	return connect.NewResponse(answer), nil
}

func message(err error) error {
	var e *connect.Error
	if errors.As(err, &e) {
		return errors.New(e.Message())
	}
	return err
}
