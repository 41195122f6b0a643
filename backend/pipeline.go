package backend

import (
	"context"
	"errors"
	"net/http"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/pushlink"
	"github.com/selvedge/selvedge/internal/rpc"
)

var errStopped = pushv1.NewError(connect.CodeUnavailable, &pushv1.ErrorDetail{Reason: pushv1.Reason_NOT_A_MEMBER}, errors.New("this member has stopped"))

// Pipeline takes many pushes at once from a sender.
func (p pushService) Pipeline(ctx context.Context, stream *connect.BidiStream[pushv1.PushCalls, pushv1.PushAnswers]) error {
	return pushlink.Serve(ctx, stream, p.begin)
}

// orUpgraded takes the connections of senders that carry nothing but pushes, until ctx ends, and passes on all else.
func (p pushService) orUpgraded(ctx context.Context, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != pushv1.PushServicePipelineProcedure || !rpc.IsUpgrade(r, pushlink.Protocol) {
			next.ServeHTTP(w, r)
			return
		}
		conn, in, err := rpc.Accept(w, pushlink.Protocol)
		if err == nil {
			err = pushlink.ServeConn(ctx, conn, in, p.begin)
		}
		if err != nil {
			p.b.log.Debug("a sender's connection has ended", zap.String("address", r.RemoteAddr), zap.Error(err))
		}
	})
}

// begin settles those of some pushes that settle at once; each other has a goroutine until it is settled.
func (p pushService) begin(ctx context.Context, calls []*pushv1.PushCall, answer func(*pushv1.PushAnswer)) error {
	b := p.b
	errands := make([]*errand, 0, len(calls))
	numbers := make([]uint64, 0, len(calls))
	for _, c := range calls {
		e, err := p.errand(c.GetPush())
		if err != nil {
			answer(&pushv1.PushAnswer{Call: c.Call, Error: b.resultError(err), Member: b.cfg.ID})
			continue
		}
		if !b.calls.enter() {
			e.span.End(0, errStopped)
			answer(&pushv1.PushAnswer{Call: c.Call, Error: b.resultError(errStopped), Member: b.cfg.ID})
			continue
		}
		e.ctx, e.cancel = withTimeout(ctx, c.Push.TimeoutMs)
		errands, numbers = append(errands, e), append(numbers, c.Call)
	}
	b.home.settleAtOnce(errands)
	settled := func(i int) {
		e := errands[i]
		a := &pushv1.PushAnswer{Call: numbers[i]}
		sessions, err := b.pushed(e)
		e.cancel()
		if a.Sessions = uint32(sessions); err == nil {
			a.Outcome = outcomeOf(sessions)
		} else {
			a.Error, a.Member = b.resultError(err), b.cfg.ID
		}
		answer(a)
		b.calls.leave()
	}
	for i, e := range errands {
		if b.isQuick(e) {
			settled(i)
			continue
		}
		go func() {
			b.home.await(e)
			settled(i)
		}()
	}
	return nil
}
