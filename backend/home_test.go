package backend

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/discovery"
)

func newIdle(t *testing.T, change func(*Config)) *Backend {
	t.Helper()
	cfg := Config{ID: "b1", Listen: "127.0.0.1:0", Membership: Membership{Memory: discovery.NewMemory()}}
	if change != nil {
		change(&cfg)
	}
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A service may be quicker than its member: it is told, and nothing breaks.
func TestBeforeRun(t *testing.T) {
	b := newIdle(t, nil)
	if n, err := b.Push(context.Background(), "alice", Text("hi")); n != 0 || !errors.Is(err, ErrNotJoined) {
		t.Errorf("push: %d, %v", n, err)
	}
	if p := b.presenceOf(context.Background(), "alice"); p.Error == nil {
		t.Errorf("presence: %v", p)
	}
	if b.isReady() == nil {
		t.Error("ready")
	}
}

// Errors of ours keep their code although they wrap what a peer's client said.
func TestRPCErrors(t *testing.T) {
	b := newIdle(t, nil)
	for _, test := range []struct {
		name     string
		err      error
		code     connect.Code
		reason   pushv1.Reason
		sessions uint32
	}{
		{"unsettled here", alsoReached(fmt.Errorf("x: %w", ErrUnsettled), 2), connect.CodeAborted, pushv1.Reason_UNSETTLED, 2},
		{"a home with a full memory", errorFromWire(b.home.errorToWire(ErrOverloaded)), connect.CodeResourceExhausted, pushv1.Reason_OVERLOADED, 0},
		{"reused there", errorFromWire(b.home.errorToWire(ErrMessageReused)), connect.CodeAlreadyExists, pushv1.Reason_MESSAGE_REUSED, 0},
		{"overtaken there", errorFromWire(b.home.errorToWire(ErrOvertaken)), connect.CodeFailedPrecondition, pushv1.Reason_OVERTAKEN, 0},
		{"nonsense there", errorFromWire(b.home.errorToWire(errors.New("x"))), connect.CodeAborted, pushv1.Reason_UNSETTLED, 0},
		{"joining", ErrNotJoined, connect.CodeUnavailable, pushv1.Reason_NOT_A_MEMBER, 0},
		{"somebody else's", &foreignOwner{"x"}, connect.CodeUnimplemented, 0, 0},
		{"reused and unsettled", errors.Join(ErrUnsettled, ErrMessageReused), connect.CodeAlreadyExists, pushv1.Reason_MESSAGE_REUSED, 0},
		{"misuse", invalid("x"), connect.CodeInvalidArgument, 0, 0},
		{"late", context.DeadlineExceeded, connect.CodeDeadlineExceeded, 0, 0},
		{"anything else", errors.New("x"), connect.CodeInternal, 0, 0},
	} {
		err := b.rpcError(test.err)
		detail := pushv1.DetailOf(err)
		if connect.CodeOf(err) != test.code || detail.GetReason() != test.reason || detail.GetSessions() != test.sessions {
			t.Errorf("%s: %v, %v; want %v, %v, %d", test.name, err, detail, test.code, test.reason, test.sessions)
		}
	}
	if b.rpcError(nil) != nil {
		t.Error("nil became an error")
	}
}

// What a repeat gives to newer sessions is not for earlier callers to wait for.
func TestWaitIsForOnesOwn(t *testing.T) {
	d := newDelivery()
	d.claim([]*Session{{id: "s1"}}, "")
	own := d.untilSettled()
	d.settle("s1", true)
	d.claim([]*Session{{id: "s2"}}, "")
	select {
	case <-own:
	default:
		t.Fatal("settled is not closed")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if took, undecided := d.wait(ctx); len(took) != 1 || undecided != 1 {
		t.Errorf("the repeat: %v, %d undecided; want s1, and s2 undecided", took, undecided)
	}
}

func TestBroadcastRepeatedToMany(t *testing.T) {
	d := newDelivery()
	var sessions []*Session
	for i := range 20_000 { // by searching, this would take seconds
		sessions = append(sessions, &Session{id: fmt.Sprint("session-number-", i)})
	}
	start := time.Now()
	if n := len(d.claim(sessions, "")); n != len(sessions) {
		t.Fatalf("%d claimed", n)
	}
	if n := len(d.claim(sessions, "")); n != 0 {
		t.Fatalf("%d claimed twice", n)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %v", took)
	}
}

// A host whose clock was set back still makes later incarnations: an earlier one would be held dead for ever.
func TestIncarnationsGrow(t *testing.T) {
	registry := discovery.NewMemory()
	before := uint64(time.Now().Add(time.Hour).UnixNano())
	gone := "127.0.0.1:1" // nobody listens there
	registry.Put("default", discovery.Member{ID: "b1", Incarnation: before, Addr: gone, RPCAddr: gone, Weight: 1})
	b := newIdle(t, func(c *Config) {
		c.Membership, c.Listen, c.RPC = Membership{Memory: registry}, "127.0.0.1:0", "127.0.0.1:0"
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	select {
	case <-b.Ready():
	case <-time.After(5 * time.Second):
		t.Error("it does not join")
	}
	if b.home.peer.Incarnation <= before {
		t.Errorf("incarnation %d after %d", b.home.peer.Incarnation, before)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
