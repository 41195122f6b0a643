package backend_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/testkit"
)

// clog is more than the kernel holds for one connection on loopback (tcp_wmem and tcp_rmem, some 10 MB together at most).
var clog = backend.Message{Data: make([]byte, 15<<20), Binary: true}

// A push is delivered when its bytes are in the kernel, and not before: not while they wait in this process.
func TestDeliveredMeansInTheKernel(t *testing.T) {
	c := newCluster(t, 2, nil)
	home, other := c.home("alice"), c.elsewhere("alice")
	slow := home.dial(t, "alice", "/")
	push := func(m *member, timeout time.Duration) (int, error) {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		return m.Push(ctx, "alice", clog, backend.WithMessageID("big"))
	}
	for _, m := range []*member{home, other} { // at its holder, and by way of another member
		start := time.Now()
		n, err := push(m, 400*time.Millisecond)
		if n != 0 || !errors.Is(err, backend.ErrUnsettled) {
			t.Fatalf("by way of %s, nobody reads: %d sessions, %v; want ErrUnsettled", m.ID(), n, err)
		}
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("it took %v; the deadline was 400 ms", took)
		}
	}
	// As senders see it: a code, a reason, and how many did take it.
	quick := home.dial(t, "alice", "/")
	go func() { _, _ = io.Copy(io.Discard, quick) }()
	client := pushv1.NewPushServiceClient(h2c(t), "http://"+home.RPCAddr().String())
	_, err := client.Push(context.Background(), connect.NewRequest(&pushv1.PushRequest{
		User: "alice", Payload: &pushv1.PushRequest_Data{Data: clog.Data}, MessageId: "big", TimeoutMs: 5000,
	}))
	detail := pushv1.DetailOf(err)
	if connect.CodeOf(err) != connect.CodeAborted || detail.GetReason() != pushv1.Reason_UNSETTLED || detail.GetSessions() != 1 {
		t.Fatalf("push by RPC: %v, %v; want aborted, UNSETTLED, 1 session", err, detail)
	}

	read := make(chan error, 1)
	go func() {
		data, err := wsutil.ReadServerBinary(slow)
		if err == nil && len(data) != len(clog.Data) {
			err = fmt.Errorf("%d bytes", len(data))
		}
		read <- err
	}()
	if n, err := push(home, 10*time.Second); n != 2 || err != nil {
		t.Fatalf("once the client reads: %d sessions, %v; want 2", n, err)
	}
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	if _, err := home.Push(context.Background(), "alice", backend.Text("after")); err != nil {
		t.Fatal(err)
	}
	slow.want("after") // one copy of the big one, whatever was repeated
}

// A client that does not read is closed once too much waits for it; the user's other sessions get everything.
func TestFullQueueClosesOneSession(t *testing.T) {
	ended := make(chan backend.CloseReason, 2)
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.QueueBytes = 1 << 20
		cfg.OnClose = func(_ *backend.Session, reason backend.CloseReason) { ended <- reason }
	})
	m := c.members[0]
	slow, quick := m.open(t, "alice"), m.open(t, "alice")
	frames := make(chan string, 2)
	go func() {
		for range 2 {
			frames <- quick.next()
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	if n, err := m.Push(ctx, "alice", clog); n != 1 || !errors.Is(err, backend.ErrUnsettled) {
		t.Fatalf("%d sessions, %v; want the quick one, and uncertain about the other", n, err)
	}
	if n, err := m.Push(context.Background(), "alice", backend.Text("one more")); n != 1 || err != nil {
		t.Fatalf("%d sessions, %v; want the quick one: the other is closed", n, err)
	}
	if got := <-frames; len(got) != len("binary ")+len(clog.Data) {
		t.Errorf("the quick session's first frame has %d bytes", len(got))
	}
	if got := <-frames; got != "text one more" {
		t.Errorf("the quick session's second frame: %q", got)
	}
	if m.Sessions() != 1 {
		t.Errorf("%d sessions; want 1", m.Sessions())
	}
	// What was begun is finished, so that the client learns why.
	if got := slow.next(); len(got) != len("binary ")+len(clog.Data) {
		t.Errorf("the slow session's frame: %.100q", got)
	}
	slow.want("close 1013 overloaded", "end")
	slow.Close()
	wantReason(t, ended, backend.Overloaded)
}

// Where the oldest are dropped, the session stays; what was begun is finished, and the newest comes. Neither the push of a message that
// was dropped nor its repeat counts the session, and both are told at once.
func TestFullQueueDropsTheOldest(t *testing.T) {
	c := newCluster(t, 1, func(cfg *backend.Config) { cfg.QueueBytes, cfg.OnFull = 1000, backend.FullDrop })
	m := c.members[0]
	slow := m.open(t, "alice")
	type result struct {
		sessions int
		err      error
	}
	results := make([]chan result, 4)
	queued := func() float64 { return metric(t, m.registry, "selvedge_backend_write_queue_bytes") }
	push := func(i int, message backend.Message, waiting func() bool) {
		results[i] = make(chan result, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			n, err := m.Push(ctx, "alice", message, backend.WithMessageID(fmt.Sprint(i)))
			results[i] <- result{n, err}
		}()
		testkit.Eventually(t, 5*time.Second, waiting, fmt.Sprint("push ", i, " to wait"))
	}
	numbered := func(i int) backend.Message { return backend.Text(fmt.Sprint(i) + strings.Repeat(".", 3000)) }
	dropped := func() float64 { return metric(t, m.registry, "selvedge_backend_dropped_messages_total") }
	push(0, clog, func() bool { return queued() > 3000 })
	begun := queued()
	push(1, numbered(1), func() bool { return queued() > begun }) // too much already, but the newest is taken
	full := queued()
	push(2, numbered(2), func() bool { return dropped() == 1 })
	push(3, numbered(3), func() bool { return dropped() == 2 })
	if queued() != full {
		t.Errorf("%v bytes wait, want %v: the begun one and the newest", queued(), full)
	}
	for i := 1; i <= 2; i++ {
		if r := <-results[i]; r.sessions != 0 || !errors.Is(r.err, backend.ErrOverloaded) {
			t.Errorf("push %d was dropped: %+v", i, r)
		}
		n, err := m.Push(context.Background(), "alice", numbered(i), backend.WithMessageID(fmt.Sprint(i)))
		if n != 0 || !errors.Is(err, backend.ErrOverloaded) {
			t.Errorf("push %d was dropped, and its repeat says %d, %v", i, n, err)
		}
	}
	if got := slow.next(); len(got) != len("binary ")+len(clog.Data) {
		t.Errorf("what was begun is cut: %.100q", got)
	}
	slow.want("text " + string(numbered(3).Data))
	for _, i := range []int{0, 3} {
		if r := <-results[i]; r.sessions != 1 || r.err != nil {
			t.Errorf("push %d: %+v, want one session", i, r)
		}
	}
	if m.Sessions() != 1 || queued() != 0 || dropped() != 2 {
		t.Errorf("%d sessions, %v bytes queued, %v dropped; want 1, 0, 2", m.Sessions(), queued(), dropped())
	}
}

// Before the 101 nothing has been begun: only the newest that fit are left.
func TestFullQueueDropsBeforeThe101(t *testing.T) {
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.QueueBytes, cfg.OnFull = 1300, backend.FullDrop
		cfg.OnOpen = func(s *backend.Session, _ *http.Request) error {
			for i := range 5 {
				if err := s.Send(backend.Text(fmt.Sprint(i) + strings.Repeat(".", 600))); err != nil {
					t.Errorf("message %d: %v", i, err)
				}
			}
			return nil
		}
	})
	s := c.members[0].open(t, "alice")
	s.want("text 3"+strings.Repeat(".", 600), "text 4"+strings.Repeat(".", 600))
}

// What OnOpen sends waits for the 101, and is bounded, too.
func TestFullQueueBeforeThe101(t *testing.T) {
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.QueueBytes = 1000
		cfg.OnOpen = func(s *backend.Session, _ *http.Request) error {
			for i := range 3 {
				_ = s.Send(backend.Text(fmt.Sprint(i) + strings.Repeat(".", 600)))
			}
			return nil
		}
	})
	s := c.members[0].open(t, "alice")
	s.want("text 0"+strings.Repeat(".", 600), "close 1013", "end")
}

// A handler that does not return stops the reading of its session: the client is pushed back on, nothing is lost, memory is bounded,
// and nobody else notices.
func TestSlowHandler(t *testing.T) {
	const size, messages, limit = 32 << 10, 2000, 256 << 10
	gate := make(chan struct{})
	var handled atomic.Int64
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.MessageBytes = limit
		cfg.OnMessage = func(s *backend.Session, m backend.Message) {
			if s.User() == "quick" {
				_ = s.Send(m)
				return
			}
			<-gate
			if n := handled.Add(1) - 1; binary.BigEndian.Uint64(m.Data) != uint64(n) {
				t.Errorf("message %d is handled as number %d", binary.BigEndian.Uint64(m.Data), n)
			}
		}
	})
	m := c.members[0]
	flood, quick := m.open(t, "flood"), m.open(t, "quick")
	var written atomic.Int64
	done := make(chan error, 1)
	go func() {
		payload := make([]byte, size)
		for i := range messages {
			binary.BigEndian.PutUint64(payload, uint64(i))
			frame := ws.MustCompileFrame(ws.MaskFrame(ws.NewBinaryFrame(payload)))
			if _, err := flood.Write(frame); err != nil {
				done <- err
				return
			}
			written.Add(size)
		}
		done <- nil
	}()

	last, still := int64(-1), time.Now()
	testkit.Eventually(t, 15*time.Second, func() bool { // stalled: no byte more within half a second
		if now := written.Load(); now != last {
			last, still = now, time.Now()
		}
		return time.Since(still) > 500*time.Millisecond
	}, "the flood to be held up")
	// The two socket buffers (some 10 MB at most on this system's defaults), and the inbox.
	if n := written.Load(); n > 24<<20 {
		t.Errorf("%d bytes went in although nothing was handled", n)
	}
	quick.write(text("hello"))
	quick.want("text hello")
	quick.write(raw(true, 0, ws.OpPing, "p"))
	quick.want("pong p")
	if n := handled.Load(); n != 0 {
		t.Errorf("%d handled behind a closed gate", n)
	}

	close(gate)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, 15*time.Second, func() bool { return handled.Load() == messages }, "every message to be handled")
}

// More tiny messages than an inbox holds: reading pauses and resumes many times, and every one is handled.
func TestSlowHandlerWithTinyMessages(t *testing.T) {
	gate, started := make(chan struct{}), make(chan struct{}, 1)
	var handled atomic.Int64
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.OnMessage = func(*backend.Session, backend.Message) {
			select {
			case started <- struct{}{}:
			default:
			}
			<-gate
			handled.Add(1)
		}
	})
	s := c.members[0].open(t, "alice")
	const messages = 100_000
	one := text("")
	go func() {
		_, _ = s.Write([]byte(strings.Repeat(string(one), messages)))
	}()
	<-started
	close(gate)
	testkit.Eventually(t, 15*time.Second, func() bool { return handled.Load() == messages }, "all to be handled")
}
