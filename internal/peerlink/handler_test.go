package peerlink

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	peerv1 "github.com/selvedge/selvedge/internal/peerv1"
	"github.com/selvedge/selvedge/internal/rpc"
	"github.com/selvedge/selvedge/internal/testkit"
)

// After a stall the member drops what waits unread: it is never served, and its callers know that something went wrong.
func TestHandlerReset(t *testing.T) {
	var mu sync.Mutex
	var order []string
	stalled, awake := make(chan context.Context, 1), make(chan struct{})
	var m *member
	m = startMember(t, "", func(ctx context.Context, r *peerv1.Request, reply func(*peerv1.Reply)) {
		mu.Lock()
		order = append(order, heard(r))
		mu.Unlock()
		switch heard(r) {
		case "stall":
			stalled <- ctx
			<-awake
		case "reset":
			m.Reset()
			if ctx.Err() == nil {
				t.Error("Reset has returned, and the context of its stream has not ended")
			}
		}
		echo(ctx, r, reply)
	})
	l, lost := newLinks(t)
	mustCall(t, l, m.addr, "hi")
	calls := []<-chan error{start(t.Context(), l, m.addr, say("stall"))}
	ctx := <-stalled
	for range 10 {
		calls = append(calls, start(t.Context(), l, m.addr, say("unread")))
	}
	awaitState(t, l, m.addr, 11, 0)
	m.Reset()
	awaitErrors(t, ErrLost, calls...)
	<-lost
	<-ctx.Done()
	close(awake)
	mustCall(t, l, m.addr, "next")
	testkit.Eventually(t, patience, func() bool { return m.open() == 1 }, "the old stream has ended")

	awaitErrors(t, ErrLost, start(t.Context(), l, m.addr, say("reset")))
	mustCall(t, l, m.addr, "last")
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"hi", "stall", "next", "reset", "last"}; !slices.Equal(order, want) {
		t.Errorf("served %v; want %v", order, want)
	}
}

// A caller that is slow to read its replies is read from as slowly, so that it costs a bounded amount of memory; one that does not read
// at all can be ended all the same.
func TestSlowCaller(t *testing.T) {
	mega := strings.Repeat("x", 1<<20)
	var served atomic.Int64
	m := startMember(t, "", func(_ context.Context, _ *peerv1.Request, reply func(*peerv1.Reply)) {
		served.Add(1)
		reply(answer(mega))
	})
	client, closeAll := rpc.Client(token, nil)
	defer closeAll()
	talk := newClient(client, "http://"+m.addr).Talk(t.Context())
	const n = 100
	requests := new(peerv1.Requests)
	for i := range n {
		requests.Requests = append(requests.Requests, say(fmt.Sprint(i)))
	}
	if err := talk.Send(requests); err != nil {
		t.Fatal(err)
	}
	for read := 0; read < n; {
		replies, err := talk.Receive()
		if err != nil {
			t.Fatal(err)
		}
		// 4 MiB are what the caller's end takes unread, 16 MiB wait, and one or two are between.
		if ahead := served.Load() - int64(read); ahead > 30 {
			t.Fatalf("%d replies of 1 MiB are on their way", ahead)
		}
		read += len(replies.Replies)
	}

	if err := talk.Send(requests); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, patience, func() bool { return served.Load() >= n+18 }, "replies fill the outbox")
	m.Reset()
	testkit.Eventually(t, patience, func() bool { return m.open() == 0 }, "the stream has ended")
}
