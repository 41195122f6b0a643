package sender_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/backend/sender"
	"github.com/selvedge/selvedge/internal/discovery"
)

func TestHomeIsAskedFirst(t *testing.T) {
	registry, order := ring(t, serve(t, "b1", delivered), serve(t, "b2", delivered), serve(t, "b3", delivered))
	s := newSender(t, sender.Config{Membership: sender.Membership{Memory: registry}})
	r, err := s.Push(context.Background(), "alice", sender.Text("hi"))
	if err != nil || r.Sessions != 1 || r.User != "alice" || r.MessageID == "" {
		t.Fatalf("%+v, %v", r, err)
	}
	if ids := order[0].asked(); len(ids) != 1 || ids[0] != r.MessageID {
		t.Errorf("the home was asked %q, the result says %q", ids, r.MessageID)
	}
	if n := len(order[1].asked()) + len(order[2].asked()); n != 0 {
		t.Errorf("others were asked %d times", n)
	}
}

// A member that is away is passed over at once, with the same message id.
func TestNextMemberIsTried(t *testing.T) {
	registry, order := ring(t, serve(t, "b1", delivered), serve(t, "b2", delivered))
	order[0].answer = fails(connect.CodeUnavailable, pushv1.Reason_HOME_AWAY)
	s := newSender(t, sender.Config{Membership: sender.Membership{Memory: registry}})
	r, err := s.Push(context.Background(), "alice", sender.Message{Data: []byte("hi"), ID: "m1"})
	if err != nil || r.Sessions != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, f := range order {
		if ids := f.asked(); len(ids) != 1 || ids[0] != "m1" {
			t.Errorf("%s was asked %q", f.id, ids)
		}
	}
}

func TestUnsettledIsRepeated(t *testing.T) {
	f := serve(t, "b1", nil)
	f.answer = func(try int) (*pushv1.PushResponse, error) {
		if try < 4 {
			return fails(connect.CodeAborted, pushv1.Reason_UNSETTLED)(try)
		}
		return delivered(try)
	}
	registry, _ := ring(t, f)
	s := newSender(t, sender.Config{Membership: sender.Membership{Memory: registry}})
	r, err := s.Push(context.Background(), "alice", sender.Text("hi"))
	if err != nil || r.Sessions != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	ids := f.asked()
	if len(ids) != 4 {
		t.Fatalf("asked %d times, want 4", len(ids))
	}
	for _, id := range ids {
		if id != r.MessageID || id == "" {
			t.Errorf("ids %q; want one over all tries", ids)
		}
	}
}

// What is not settled by the deadline is said to be so, with how many were reached; the deadline's own error would say less.
func TestDeadline(t *testing.T) {
	f := serve(t, "b1", fails(connect.CodeAborted, pushv1.Reason_UNSETTLED))
	registry, _ := ring(t, f)
	s := newSender(t, sender.Config{Membership: sender.Membership{Memory: registry}})
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	r, err := s.Push(ctx, "alice", sender.Text("hi"))
	took := time.Since(start)
	detail := pushv1.DetailOf(err)
	if connect.CodeOf(err) != connect.CodeAborted || detail.GetReason() != pushv1.Reason_UNSETTLED || detail.GetSessions() != 2 || r.MessageID == "" {
		t.Errorf("%+v, %v, %v", r, err, detail)
	}
	if took < 290*time.Millisecond || took > 3*time.Second {
		t.Errorf("it took %v, the deadline was 300 ms", took)
	}
	if n := len(f.asked()); n < 2 {
		t.Errorf("asked %d times within 300 ms", n)
	}
}

func TestMisuseIsNotRepeated(t *testing.T) {
	f := serve(t, "b1", fails(connect.CodeInvalidArgument, 0))
	registry, _ := ring(t, f)
	s := newSender(t, sender.Config{Membership: sender.Membership{Memory: registry}})
	if _, err := s.Push(context.Background(), "alice", sender.Text("hi")); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("%v", err)
	}
	if n := len(f.asked()); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestEmptyRing(t *testing.T) {
	s := newSender(t, sender.Config{Membership: sender.Membership{Memory: discovery.NewMemory()}})
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	_, err := s.Push(ctx, "alice", sender.Text("hi"))
	if connect.CodeOf(err) != connect.CodeUnavailable || pushv1.DetailOf(err).GetReason() != pushv1.Reason_NO_MEMBERS {
		t.Errorf("push: %v, %v", err, pushv1.DetailOf(err))
	}
	if _, ok := s.Owner(ctx, "alice"); ok {
		t.Error("an owner on an empty ring")
	}
}

func TestMemberWithoutPushService(t *testing.T) {
	registry := discovery.NewMemory()
	registry.Put("default", discovery.Member{ID: "theirs", Addr: "127.0.0.1:1", Weight: 1})
	s := newSender(t, sender.Config{Membership: sender.Membership{Memory: registry}})
	if _, err := s.Push(context.Background(), "alice", sender.Text("hi")); connect.CodeOf(err) != connect.CodeUnimplemented {
		t.Errorf("%v; want unimplemented", err)
	}
}

func TestConfig(t *testing.T) {
	memory := sender.Membership{Memory: discovery.NewMemory()}
	for _, test := range []struct {
		cfg  sender.Config
		want string
	}{
		{sender.Config{}, "sender: "},
		{sender.Config{Via: "http://h:1", Membership: memory}, "choose one"},
		{sender.Config{Via: "h:1"}, "want http://HOST:PORT"},
		{sender.Config{Via: "ftp://h:1"}, "want http://HOST:PORT"},
		{sender.Config{Via: "http://h:1", TLS: &sender.TLS{CA: "ca.pem"}}, "want https://HOST:PORT"},
		{sender.Config{Via: "https://h:1", TLS: &sender.TLS{CA: "/does/not/exist"}}, "/does/not/exist"},
		{sender.Config{Via: "http://"}, "want http://HOST:PORT"},
		{sender.Config{Via: "http://h:\x00"}, "want http://HOST:PORT"},
	} {
		s, err := sender.New(test.cfg)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v; want %q", test.cfg, err, test.want)
		}
	}
}

// Via somewhere where nobody listens: tried until the deadline, then told as what it is.
func TestViaNobody(t *testing.T) {
	f := serve(t, "b1", delivered)
	s := newSender(t, sender.Config{Via: f.url + "/nothing/here"})
	if _, err := s.Push(context.Background(), "alice", sender.Text("hi")); connect.CodeOf(err) != connect.CodeUnimplemented {
		t.Errorf("a URL that serves something else: %v", err)
	}
	s = newSender(t, sender.Config{Via: "http://127.0.0.1:1"})
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if _, err := s.Push(ctx, "alice", sender.Text("hi")); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("nobody there: %v", err)
	}
}

func TestClose(t *testing.T) {
	gate, started := make(chan struct{}), make(chan struct{})
	f := serve(t, "b1", func(try int) (*pushv1.PushResponse, error) {
		close(started)
		<-gate
		return delivered(try)
	})
	s, err := sender.New(sender.Config{Via: f.url})
	if err != nil {
		t.Fatal(err)
	}
	pushed, closed := make(chan error, 1), make(chan struct{})
	go func() {
		_, err := s.Push(context.Background(), "alice", sender.Text("hi"))
		pushed <- err
	}()
	<-started
	go func() { s.Close(); close(closed) }()
	for { // the call under way is waited for, a new one is refused
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		_, err := s.Presence(ctx, "alice")
		cancel()
		if errors.Is(err, sender.ErrClosed) {
			break
		}
	}
	select {
	case <-closed:
		t.Fatal("Close did not wait")
	default:
	}
	close(gate)
	if err := <-pushed; err != nil {
		t.Errorf("the call under way: %v", err)
	}
	<-closed
	s.Close()
}

// A member's answer that does not fit the question is an error, not a panic or a wrong result.
func TestPushManyTakesOneResultPerUser(t *testing.T) {
	s := newSender(t, sender.Config{Via: serveMany(t)})
	results, err := s.PushMany(context.Background(), []string{"alice", "bob"}, sender.Text("hi"))
	if err != nil || len(results) != 2 {
		t.Fatalf("%v, %v", results, err)
	}
	for _, r := range results {
		if connect.CodeOf(r.Err) != connect.CodeInternal {
			t.Errorf("%+v; want internal", r)
		}
	}
}
