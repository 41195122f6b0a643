package sender

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/pushlink"
)

// pipelineMost is the size, in bytes of payload, of the largest push that goes by the stream. Larger ones are calls of their own, so that
// others need not stand behind them.
const pipelineMost = 64 << 10

// pipelined is a member's client whose pushes share one stream. It is opened by the first, and again by the next after it broke.
type pipelined struct {
	pushv1.PushServiceClient
	member  string          // its name
	dial    pushlink.Dial   // nil: only streams
	running *sync.WaitGroup // the sender's streams
	hasNone atomic.Bool     // the member is of a release without Pipeline

	mu     sync.Mutex
	link   *pushlink.Link
	closed bool
}

// Push implements [pushv1.PushServiceClient].
func (p *pipelined) Push(ctx context.Context, r *connect.Request[pushv1.PushRequest]) (*connect.Response[pushv1.PushResponse], error) {
	m := r.Msg
	if len(m.GetText())+len(m.GetData()) > pipelineMost || p.hasNone.Load() {
		return p.PushServiceClient.Push(ctx, r)
	}
	link, err := p.open()
	if err != nil {
		return nil, err
	}
	answer, err := link.Push(ctx, &pushv1.PushRequest{
		User: m.User, Payload: m.Payload, MessageId: m.MessageId, TimeoutMs: timeLeft(ctx), ExceptSession: m.ExceptSession,
		RingDigest: m.RingDigest, Sender: m.Sender, Sequence: m.Sequence, Traceparent: m.Traceparent,
	})
	switch {
	case connect.CodeOf(err) == connect.CodeUnimplemented:
		p.hasNone.Store(true)
		return p.PushServiceClient.Push(ctx, r)
	case ctx.Err() != nil && err != nil:
		return nil, connect.NewError(codeOfEnd(ctx.Err()), err)
	case err != nil:
		return nil, err
	case answer.Error != nil:
		return nil, said(answer)
	}
	return connect.NewResponse(&pushv1.PushResponse{Outcome: answer.Outcome, Sessions: answer.Sessions, MessageId: m.MessageId}), nil
}

// said is the error that a member gave for an answer.
func said(a *pushv1.PushAnswer) error {
	err := a.Error.Err()
	out := connect.NewWireError(connect.CodeOf(err), message(err))
	if detail, failed := connect.NewErrorDetail(&pushv1.ErrorDetail{Reason: a.Error.Reason, Sessions: a.Sessions, Member: a.Member}); failed == nil {
		out.AddDetail(detail)
	}
	return out
}

func codeOfEnd(err error) connect.Code {
	if err == context.Canceled { //nolint:errorlint // of a context
		return connect.CodeCanceled
	}
	return connect.CodeDeadlineExceeded
}

// timeLeft is what is left of ctx's time, in milliseconds.
func timeLeft(ctx context.Context) uint32 {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return uint32(max(time.Until(deadline).Milliseconds(), 1))
}

func (p *pipelined) open() (*pushlink.Link, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, connect.NewError(connect.CodeUnavailable, ErrClosed)
	}
	if p.link == nil || p.link.HasEnded() {
		link := pushlink.New()
		p.running.Go(func() { link.Run(p.dial, p.PushServiceClient) })
		p.link = link
	}
	return p.link, nil
}

// close ends the stream, and with it the pushes under way.
func (p *pipelined) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.link != nil {
		p.link.Close()
	}
}

// Pipeline passes many pushes at once on.
func (v service) Pipeline(ctx context.Context, stream *connect.BidiStream[pushv1.PushCalls, pushv1.PushAnswers]) error {
	return pushlink.Serve(ctx, stream, func(ctx context.Context, calls []*pushv1.PushCall, answer func(*pushv1.PushAnswer)) error {
		for _, c := range calls {
			go func() { answer(v.answer(ctx, c)) }()
		}
		return nil
	})
}

func (v service) answer(ctx context.Context, c *pushv1.PushCall) *pushv1.PushAnswer {
	a := &pushv1.PushAnswer{Call: c.Call}
	if c.Push == nil {
		c.Push = new(pushv1.PushRequest) // a member says what is wrong with it
	}
	if left := time.Duration(c.Push.TimeoutMs) * time.Millisecond; left > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, left-min(left/10, answerTime))
		defer cancel()
	}
	response, err := v.s.push(ctx, c.Push)
	if err != nil {
		detail := pushv1.DetailOf(err)
		a.Error, a.Sessions, a.Member = pushv1.ResultError(err), detail.Sessions, detail.Member
		return a
	}
	a.Outcome, a.Sessions = response.Outcome, response.Sessions
	return a
}
