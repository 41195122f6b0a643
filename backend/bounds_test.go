package backend_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/gobwas/ws"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/testkit"
)

// heap is the bytes that live in it.
func heap() int64 {
	runtime.GC()
	runtime.GC() // pools let go at the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A message of 1 MiB goes each way, plain and deflated, and once it is through nothing of it is left.
func TestLargeMessages(t *testing.T) {
	const size = 1 << 20
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.Compress, cfg.MessageBytes = true, size
		cfg.OnMessage = func(s *backend.Session, m backend.Message) { _ = s.Send(m) }
	})
	random := rand.New(rand.NewPCG(1, 2))
	letters := make([]byte, size) // shrinks to about a quarter, so that it crosses many reads deflated, too
	for i := range letters {
		letters[i] = 'a' + byte(random.IntN(4))
	}
	payload := string(letters)
	for name, lines := range map[string][]string{"plain": nil, "deflate": {offerDeflate}} {
		t.Run(name, func(t *testing.T) {
			s, _ := c.members[0].openWith(t, "alice", lines...)
			sent := text(payload)
			if lines != nil {
				sent = packed(ws.OpText, payload)
			}
			exchange := func() {
				_ = s.SetDeadline(time.Now().Add(20 * time.Second))
				written := make(chan error, 1)
				go func() { _, err := s.Write(sent); written <- err }()
				if got, deflated := s.message(); got != payload || deflated != (lines != nil) {
					t.Errorf("%d bytes came back, deflated %v", len(got), deflated)
				}
				if err := <-written; err != nil {
					t.Fatal(err)
				}
			}
			exchange()
			before := heap()
			for range 3 {
				exchange()
			}
			if more := heap() - before; more > size {
				t.Errorf("%d bytes are left of 3 messages", more)
			}
		})
	}
}

// A client that floods a slow handler with tiny messages costs a bounded piece of memory, and others are served meanwhile.
func TestFloodOfTinyMessagesIsBounded(t *testing.T) {
	gate := make(chan struct{})
	var handled atomic.Int64
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.OnMessage = func(s *backend.Session, m backend.Message) {
			if s.User() == "quick" {
				_ = s.Send(m)
				return
			}
			<-gate
			handled.Add(1)
		}
	})
	m := c.members[0]
	flood, quick := m.open(t, "flood"), m.open(t, "quick")
	part := []byte(strings.Repeat(string(text("x")), 10_000))
	before := heap()
	var parts atomic.Int64
	var writing sync.WaitGroup
	writing.Go(func() {
		for {
			n, err := flood.Write(part)
			if err != nil || n < len(part) {
				return
			}
			parts.Add(1)
		}
	})
	last, still := int64(-1), time.Now()
	testkit.Eventually(t, 15*time.Second, func() bool {
		if now := parts.Load(); now != last {
			last, still = now, time.Now()
		}
		return time.Since(still) > 300*time.Millisecond
	}, "the flood to be held up")
	if sent := parts.Load() * int64(len(part)); sent < 1<<20 {
		t.Fatalf("held up after %d bytes already", sent)
	}
	// What is parsed of one read, 64 KiB of messages of 7 bytes, at some 100 bytes each.
	if more := heap() - before; more > 4<<20 {
		t.Errorf("the flood holds %d bytes; want a few reads' worth", more)
	}
	quick.write(text("hello"))
	quick.want("text hello")
	if n, err := m.Push(context.Background(), "flood", backend.Text("hi")); n != 1 || err != nil {
		t.Errorf("a push to the flooding client: %d, %v", n, err)
	}
	if handled.Load() != 0 {
		t.Error("handled behind a closed gate")
	}
	flood.Close()
	writing.Wait()
	close(gate)
}

// Broadcasts beside a client that does not read: the others have each at once, what waits for the slow one is bounded, and it is not counted.
func TestBroadcastBesideSlowReader(t *testing.T) {
	const queue, others, size, times = 1 << 20, 5, 256 << 10, 8
	c := newCluster(t, 1, func(cfg *backend.Config) { cfg.QueueBytes, cfg.OnFull = queue, backend.FullDrop })
	m := c.members[0]
	m.open(t, "slow")
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if _, err := m.Push(ctx, "slow", clog); !errors.Is(err, backend.ErrUnsettled) { // more than the kernel takes
		t.Fatal(err)
	}
	message := strings.Repeat("x", size)
	var reading sync.WaitGroup
	for i := range others {
		s := m.open(t, fmt.Sprint("quick-", i))
		reading.Go(func() {
			for range times {
				if got := s.next(); got != "text "+message {
					t.Errorf("%.100q", got)
				}
			}
		})
	}
	client := pushv1.NewPushServiceClient(h2c(t), "http://"+m.RPCAddr().String())
	before := heap()
	for range times {
		response, err := client.Broadcast(context.Background(), connect.NewRequest(&pushv1.BroadcastRequest{
			Payload: &pushv1.BroadcastRequest_Text{Text: message}, TimeoutMs: 200,
		}))
		if err != nil || response.Msg.Sessions != others {
			t.Fatalf("%v, %v; want %d sessions", response, err, others)
		}
		if waits := metric(t, m.registry, "selvedge_backend_write_queue_bytes"); waits > float64(len(clog.Data)+queue) {
			t.Errorf("%v bytes wait for one client", waits)
		}
	}
	reading.Wait()
	if more := heap() - before; more > 2*queue {
		t.Errorf("%d broadcasts hold %d bytes; the slow client's queue may have %d", times, more, queue)
	}
	if m.Sessions() != others+1 || metric(t, m.registry, "selvedge_backend_dropped_messages_total") == 0 {
		t.Errorf("%d sessions; want all, and the oldest dropped for the slow one", m.Sessions())
	}
}
