package peerlink

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	peerv1 "github.com/selvedge/selvedge/internal/peerv1"
)

func TestTake(t *testing.T) {
	const kib = 1 << 10
	o := newOutbox()
	for _, size := range []int{100 * kib, 100 * kib, 100 * kib, 300 * kib, 1, 256*kib - 1, 1} {
		o.put(&message{encoded: make([]byte, size)})
	}
	var got []int
	for batch := o.take(nil); len(batch) > 0; batch = o.take(nil) {
		got = append(got, len(batch))
	}
	if want := []int{2, 1, 1, 2, 1}; !slices.Equal(got, want) {
		t.Errorf("batches of %v; want %v", got, want)
	}
	if o.bytes != 0 {
		t.Errorf("%d bytes wait in an empty outbox", o.bytes)
	}
}

// The batch that is put together from parts is what protobuf makes of the whole, whatever call the parts had in them.
func TestAppendBatch(t *testing.T) {
	want := new(peerv1.Requests)
	var batch []*message
	for call := range uint64(300) {
		r := say("hi")
		r.Call = 7
		encoded, err := proto.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		batch = append(batch, &message{call: call, encoded: encoded})
		r.Call = call
		want.Requests = append(want.Requests, r)
	}
	got := new(peerv1.Requests)
	if err := proto.Unmarshal(appendBatch(nil, batch), got); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}
