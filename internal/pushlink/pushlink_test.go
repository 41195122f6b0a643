package pushlink

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/selvedge/selvedge/backend/pushv1"
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
		call, err := l.put(encoded, nil)
		if err != nil {
			t.Fatal(err)
		}
		want.Calls = append(want.Calls, &pushv1.PushCall{Call: call, Push: push})
	}
	got, batches := &pushv1.PushCalls{}, 0
	for batch := l.take(); len(batch) > 0; batch = l.take() {
		part := new(pushv1.PushCalls)
		if err := proto.Unmarshal(batch, part); err != nil {
			t.Fatal(err)
		}
		if len(part.Calls) > maxBatch || len(batch) > maxBatchBytes {
			t.Errorf("a batch of %d calls, %d bytes", len(part.Calls), len(batch))
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
	l.Run(pushv1.NewPushServiceClient(http.DefaultClient, gone.URL, connect.WithGRPC()))
	waiting.Wait()
}
