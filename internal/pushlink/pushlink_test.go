package pushlink

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/testkit"
)

// A batch that is put together from encoded parts is what the parts make.
func TestBatchEncoding(t *testing.T) {
	l := New()
	defer l.Close()
	want := &pushv1.PushCalls{}
	for i := range 300 {
		push := &pushv1.PushRequest{User: string(rune('a' + i%26)), Payload: &pushv1.PushRequest_Data{Data: make([]byte, i*20)}}
		encoded, err := proto.Marshal(push)
		if err != nil {
			t.Fatal(err)
		}
		call, _, err := l.put(encoded, nil)
		if err != nil {
			t.Fatal(err)
		}
		want.Calls = append(want.Calls, &pushv1.PushCall{Call: call, Push: push})
	}
	got, batches := &pushv1.PushCalls{}, 0
	for batch := l.take(nil); len(batch) > 0; batch = l.take(nil) {
		part := new(pushv1.PushCalls)
		if err := proto.Unmarshal(batch, part); err != nil {
			t.Fatal(err)
		}
		if len(part.Calls) > maxBatch || len(batch) > maxBatchBytes {
			t.Errorf("a batch of %d calls, %d bytes", len(part.Calls), len(batch))
		}
		for _, c := range part.Calls {
			c.SentMs = 0 // which is when it was
		}
		got.Calls = append(got.Calls, part.Calls...)
		batches++
	}
	if !proto.Equal(got, want) || batches < 3 {
		t.Errorf("%d calls in %d batches are not what was put", len(got.Calls), batches)
	}
}

// Those who wait on a stream that breaks each have an error of their own: looking into one of Connect's changes it.
func TestEachHasItsOwnError(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	l := New()
	var waiting sync.WaitGroup
	for range 4 {
		waiting.Go(func() {
			_, err := l.Push(context.Background(), &pushv1.PushRequest{User: "alice"})
			var e *connect.Error
			if !errors.Is(err, ErrBroken) || !errors.As(err, &e) || e.Code() != connect.CodeUnavailable {
				t.Errorf("%v; want that it is unavailable", err)
				return
			}
			e.Meta().Set("X-Seen", "by one") // the race detector watches
		})
	}
	l.Run(nil, pushv1.NewPushServiceClient(http.DefaultClient, gone.URL, connect.WithGRPC()))
	waiting.Wait()
}

// Whoever has given up waiting is not pushed for: the member would deliver what has been tried again elsewhere.
func TestAbandonedCallsAreNotSent(t *testing.T) {
	l := New()
	defer l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	given := make(chan error)
	go func() {
		_, err := l.Push(ctx, &pushv1.PushRequest{User: "gone"})
		given <- err
	}()
	testkit.Eventually(t, 5*time.Second, func() bool { l.mu.Lock(); defer l.mu.Unlock(); return len(l.waiting) == 1 }, "the push to wait")
	cancel()
	if err := <-given; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	l.began = time.Now().Add(-time.Minute)
	if _, _, err := l.put([]byte{}, nil); err != nil {
		t.Fatal(err)
	}
	got := new(pushv1.PushCalls)
	if err := proto.Unmarshal(l.take(nil), got); err != nil {
		t.Fatal(err)
	}
	if len(got.Calls) != 1 || got.Calls[0].GetPush().GetUser() != "" {
		t.Fatalf("%v; want the one that is waited for", got)
	}
	if sent := time.Duration(got.Calls[0].SentMs) * time.Millisecond; sent < time.Minute || sent > time.Hour {
		t.Errorf("sent at %v of a clock that began a minute ago", sent)
	}
}

// A member that stood still finds calls in its buffers whose senders have tried elsewhere.
func TestOutdatedCallsAreDropped(t *testing.T) {
	clock := time.Now()
	w := &way{began: clock, now: func() time.Time { return clock }}
	call := func(n, sentMs uint64) *pushv1.PushCall {
		return &pushv1.PushCall{Call: n, SentMs: sentMs, Push: &pushv1.PushRequest{TimeoutMs: 1000}}
	}
	var answered []uint64
	arrive := func(after time.Duration, calls ...*pushv1.PushCall) []*pushv1.PushCall {
		clock = clock.Add(after)
		return inTime(calls, w.age, func(a *pushv1.PushAnswer) {
			if a.Error == nil {
				t.Errorf("call %d has an outcome", a.Call)
			}
			answered = append(answered, a.Call)
		})
	}
	const apart = 1e9 // ms, of the two clocks
	if left := arrive(0, call(1, apart)); len(left) != 1 || left[0].Push.TimeoutMs != 1000 {
		t.Errorf("the first: %v", left)
	}
	left := arrive(4*time.Second, call(2, apart+10), call(3, apart+3400), call(4, 0))
	if len(left) != 2 || left[0].Call != 3 || left[0].Push.TimeoutMs != 400 || left[1].Call != 4 || len(answered) != 1 || answered[0] != 2 {
		t.Errorf("after a stall: %v, answered %v; want call 3 with 400 ms, call 4 of an earlier release, and call 2 dropped", left, answered)
	}
	// Clocks that run apart by 100 ppm make nothing old, neither under way nor after a night.
	sent := uint64(apart + 4000)
	for range 200 {
		sent += 10_000
		if left := arrive(10*time.Second+time.Millisecond, call(5, sent)); len(left) != 1 || left[0].Push.TimeoutMs < 990 {
			t.Fatalf("with clocks that run apart: %v", left)
		}
	}
	if left := arrive(8*time.Hour+3*time.Second, call(6, sent+uint64(8*time.Hour/time.Millisecond))); len(left) != 1 || left[0].Push.TimeoutMs != 1000 {
		t.Errorf("after a night: %v", left)
	}
}

// piped is a member that notes the time that each push has left, and delivers it.
type piped struct {
	pushv1.UnimplementedPushServiceHandler
	begun chan *pushv1.PushCall
}

func (p piped) Pipeline(ctx context.Context, stream *connect.BidiStream[pushv1.PushCalls, pushv1.PushAnswers]) error {
	return Serve(ctx, stream, func(_ context.Context, calls []*pushv1.PushCall, answer func(*pushv1.PushAnswer)) error {
		for _, c := range calls {
			p.begun <- c
			answer(&pushv1.PushAnswer{Call: c.Call, Sessions: 1})
		}
		return nil
	})
}

// Over a real stream: of two calls that come at once, the one that left long before the other has run out of time.
func TestServeDropsOutdatedCalls(t *testing.T) {
	member := piped{begun: make(chan *pushv1.PushCall, 10)}
	mux := http.NewServeMux()
	mux.Handle(pushv1.NewPushServiceHandler(member))
	server := httptest.NewUnstartedServer(mux)
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	stream := pushv1.NewPushServiceClient(server.Client(), server.URL, connect.WithGRPC()).Pipeline(ctx)
	call := func(n, sentMs uint64) *pushv1.PushCall {
		return &pushv1.PushCall{Call: n, SentMs: sentMs, Push: &pushv1.PushRequest{User: "alice", TimeoutMs: 30_000}}
	}
	if err := stream.Send(&pushv1.PushCalls{Calls: []*pushv1.PushCall{call(1, 100_000), call(2, 60_000)}}); err != nil {
		t.Fatal(err)
	}
	answers := make(map[uint64]*pushv1.PushAnswer)
	for len(answers) < 2 {
		got, err := stream.Receive()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range got.Answers {
			answers[a.Call] = a
		}
	}
	if answers[1].Error != nil || answers[1].Sessions != 1 || answers[2].Error == nil {
		t.Errorf("%v; want that the first is delivered, and the second is too late", answers)
	}
	if begun := <-member.begun; begun.Call != 1 || len(member.begun) != 0 {
		t.Errorf("call %d is begun, and %d more; want the first alone", begun.Call, len(member.begun))
	}
	cancel()
	_ = stream.CloseRequest()
	_ = stream.CloseResponse()
}
