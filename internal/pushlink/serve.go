package pushlink

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

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
	w := &work{begin: begin, way: newWay(), out: out}
	for {
		calls, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := w.do(ctx, calls.Calls); err != nil {
			return err
		}
	}
}

// ServeConn is the same over an upgraded connection, which it closes when it ends or ctx does.
func ServeConn(ctx context.Context, conn net.Conn, in *bufio.Reader, begin Begin) error {
	ctx, cancel := context.WithCancel(ctx)
	out := &answers{room: make(chan struct{}, MaxCalls), arrived: make(chan struct{}, 1)}
	out.empty = true // which says that the connection is taken
	out.outbox = newOutbox(conn, out.frame)
	var writing sync.WaitGroup
	writing.Go(func() { out.outbox.run(ctx) })
	defer writing.Wait()
	defer cancel()
	out.outbox.flush()
	w := &work{begin: begin, way: newWay(), out: out}
	frames := frames{in: readOn(in, quickly(conn))}
	for {
		body, err := frames.next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		calls := new(pushv1.PushCalls)
		if err := proto.Unmarshal(body, calls); err != nil {
			return err
		}
		out.hold(len(calls.Calls) == 0)
		err = w.do(ctx, calls.Calls)
		out.release()
		if err != nil {
			return err
		}
	}
}

// work is what the reader of a stream does.
type work struct {
	begin Begin
	way   *way
	out   *answers
}

// do begins calls, as there is room for them.
func (w *work) do(ctx context.Context, calls []*pushv1.PushCall) error {
	for some := range slices.Chunk(calls, maxBatch) {
		for len(some) > 0 {
			n, err := w.out.admit(ctx, len(some))
			if err != nil {
				return err
			}
			if err := w.begin(ctx, inTime(some[:n], w.way.age, w.out.put), w.out.put); err != nil {
				return err
			}
			some = some[n:]
		}
	}
	return nil
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

	outbox *outbox // nil: it is a stream, and send sends

	mu      sync.Mutex
	waiting []*pushv1.PushAnswer
	empty   bool // an empty frame is due
	held    bool // a batch is being worked on, whose answers go together
}

// hold keeps answers back until release; due says that an empty frame is asked for.
func (a *answers) hold(due bool) {
	a.mu.Lock()
	a.held = true
	a.empty = a.empty || due
	a.mu.Unlock()
}

func (a *answers) release() {
	a.mu.Lock()
	a.held = false
	a.mu.Unlock()
	a.outbox.flush()
}

// frame appends the next frame to send.
func (a *answers) frame(buffer []byte) []byte {
	a.mu.Lock()
	some := a.waiting[:min(len(a.waiting), maxBatch)]
	if a.waiting = a.waiting[len(some):]; len(a.waiting) == 0 {
		a.waiting = nil
	}
	empty := a.empty
	a.empty = false
	a.mu.Unlock()
	if len(some) == 0 && !empty {
		return buffer
	}
	buffer, err := proto.MarshalOptions{}.MarshalAppend(append(buffer, make([]byte, frameHead)...), &pushv1.PushAnswers{Answers: some})
	if err != nil { // of a text that is not UTF-8; the sender asks again, and the reader learns
		_ = a.outbox.conn.Close()
		return buffer[:0]
	}
	endFrame(buffer, 0)
	for range some {
		<-a.room
	}
	return buffer
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
	held := a.held
	a.mu.Unlock()
	switch {
	case a.outbox == nil:
		notify(a.arrived)
	case !held:
		a.outbox.flush()
	}
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
