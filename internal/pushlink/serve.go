package pushlink

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
)

// Begin takes some pushes of a stream; it is called by one goroutine, in the order in which they came, and must not wait for any of them.
// answer is called once for each, from any goroutine, before Begin returns or later; it does not block. ctx ends with the stream. An error
// of Begin ends the stream.
type Begin func(ctx context.Context, calls []*pushv1.PushCall, answer func(*pushv1.PushAnswer)) error

// Serve is the life of a stream at the member's end. The first message that it sends has no answers: it says that the stream is accepted.
func Serve(ctx context.Context, stream *connect.BidiStream[pushv1.PushCalls, pushv1.PushAnswers], begin Begin) error {
	if err := stream.Send(new(pushv1.PushAnswers)); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	out := &answers{room: make(chan struct{}, MaxCalls), arrived: make(chan struct{}, 1)}
	var sending sync.WaitGroup
	sending.Go(func() {
		defer cancel()
		out.send(ctx, stream)
	})
	defer sending.Wait()
	defer cancel()
	way := newWay()
	for {
		calls, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for some := range slices.Chunk(calls.Calls, maxBatch) {
			for len(some) > 0 {
				n, err := out.admit(ctx, len(some))
				if err != nil {
					return err
				}
				if err := begin(ctx, inTime(some[:n], way.age, out.put), out.put); err != nil {
					return err
				}
				some = some[n:]
			}
		}
	}
}

// inTime returns the calls whose time is not over, with what is left of it. The others are answered, to nobody: whoever pushed has tried again
// elsewhere, and may have been told an outcome that a delivery now would belie.
func inTime(calls []*pushv1.PushCall, age func(sentMs uint64) time.Duration, answer func(*pushv1.PushAnswer)) []*pushv1.PushCall {
	left := calls[:0]
	for _, c := range calls {
		timeout, late := c.GetPush().GetTimeoutMs(), uint32(age(c.SentMs).Milliseconds())
		switch {
		case timeout == 0 || c.SentMs == 0:
		case late >= timeout:
			answer(&pushv1.PushAnswer{Call: c.Call, Error: pushv1.ResultError(errOutdated)})
			continue
		default:
			c.Push.TimeoutMs = timeout - late
		}
		left = append(left, c)
	}
	return left
}

var errOutdated = connect.NewError(connect.CodeDeadlineExceeded, errors.New("it was longer on its way than it had time"))

// answers is what waits to be sent on a stream.
type answers struct {
	room    chan struct{} // a value for each push under way
	arrived chan struct{} // has a value when something may be waiting

	mu      sync.Mutex
	waiting []*pushv1.PushAnswer
}

// admit waits until there is room for one push more, and takes as much as there is, for up to most.
func (a *answers) admit(ctx context.Context, most int) (n int, err error) {
	select {
	case a.room <- struct{}{}:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	for n = 1; n < most; n++ {
		select {
		case a.room <- struct{}{}:
		default:
			return n, nil
		}
	}
	return n, nil
}

func (a *answers) put(answer *pushv1.PushAnswer) {
	a.mu.Lock()
	a.waiting = append(a.waiting, answer)
	a.mu.Unlock()
	notify(a.arrived)
}

// send sends what waits and what comes, until the stream ends. A push is under way until its answer has left.
func (a *answers) send(ctx context.Context, stream *connect.BidiStream[pushv1.PushCalls, pushv1.PushAnswers]) {
	for {
		select {
		case <-a.arrived:
		case <-ctx.Done():
			return
		}
		a.mu.Lock()
		batch := a.waiting
		a.waiting = nil
		a.mu.Unlock()
		for some := range slices.Chunk(batch, maxBatch) {
			if stream.Send(&pushv1.PushAnswers{Answers: some}) != nil {
				return
			}
		}
		for range batch {
			<-a.room
		}
	}
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it has a value already
	}
}
