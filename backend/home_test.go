package backend

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/testkit"
)

func newIdle(t *testing.T, change func(*Config)) *Backend {
	t.Helper()
	cfg := Config{ID: "b1", Membership: Membership{Memory: discovery.NewMemory()}}
	if change != nil {
		change(&cfg)
	}
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A home may answer from its own sessions alone only while nothing says that some could be elsewhere.
func TestCalm(t *testing.T) {
	long := time.Now().Add(-time.Hour).UnixNano()
	for _, test := range []struct {
		name   string
		change func(*Config)
		set    func(*Backend)
		want   bool
	}{
		{"for an hour", nil, func(*Backend) {}, true},
		{"members changed", nil, func(b *Backend) { b.changedAt.Store(time.Now().UnixNano()) }, false},
		{"within calmAfter", nil, func(b *Backend) { b.changedAt.Store(time.Now().Add(-calmAfter + time.Second).UnixNano()) }, false},
		{"a long spread", func(c *Config) { c.Move.Spread = time.Hour }, func(*Backend) {}, false},
		{"sessions of ours are misplaced", nil, func(b *Backend) { b.misplaced.Store(1) }, false},
		{"somebody else's sessions are ours", nil, func(b *Backend) { b.greetedAt.Store(time.Now().UnixNano()) }, false},
		{"somebody's were, a while ago", nil, func(b *Backend) { b.greetedAt.Store(time.Now().Add(-greetedFor - time.Second).UnixNano()) }, true},
		{"sessions are never moved", func(c *Config) { c.OnMove = MoveKeep }, func(*Backend) {}, false},
	} {
		b := newIdle(t, test.change)
		b.changedAt.Store(long)
		test.set(b)
		if got := b.isCalm(); got != test.want {
			t.Errorf("%s: calm %t, want %t", test.name, got, test.want)
		}
	}
}

// Who may still hold sessions although it is off the ring makes a home ask.
func TestNotCalmWhileSomebodyDrains(t *testing.T) {
	registry := discovery.NewMemory()
	b := newIdle(t, func(c *Config) { c.Membership = Membership{Memory: registry} })
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.view.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	member := func(id string, state discovery.State) discovery.Member {
		return discovery.Member{ID: id, Incarnation: 1, Addr: "127.0.0.1:1", RPCAddr: "127.0.0.1:2", State: state, Weight: 1}
	}
	see := func(state discovery.State) {
		t.Helper()
		registry.Put("default", member("b1", discovery.Serving))
		registry.Put("default", member("b2", state))
		testkit.Eventually(t, 5*time.Second, func() bool {
			m, known := b.view.Snapshot().Member("b2")
			return known && m.State == state
		}, "the view to follow")
		b.changedAt.Store(time.Now().Add(-time.Hour).UnixNano())
	}
	see(discovery.Serving)
	if v := b.homingView(); !v.Calm || len(v.Peers) != 1 {
		t.Errorf("both serve: %+v", v)
	}
	see(discovery.Draining)
	if v := b.homingView(); v.Calm || len(v.Peers) != 1 {
		t.Errorf("one drains: %+v", v)
	}
}

// Errors of ours keep their code although they wrap what a peer's client said.
func TestRPCErrors(t *testing.T) {
	b := newIdle(t, nil)
	p := &peers{backend: b}
	reachedThree := pushv1.NewError(connect.CodeAborted, &pushv1.ErrorDetail{Reason: pushv1.Reason_UNSETTLED, Sessions: 3}, errors.New("slow"))
	refused := connect.NewError(connect.CodeUnavailable, fmt.Errorf("dial: %w", syscall.ECONNREFUSED))
	for _, test := range []struct {
		name     string
		err      error
		code     connect.Code
		reason   pushv1.Reason
		sessions uint32
	}{
		{"unsettled here", alsoReached(fmt.Errorf("x: %w", ErrUnsettled), 2), connect.CodeAborted, pushv1.Reason_UNSETTLED, 2},
		{"a peer is away", p.explain("b2", connect.NewError(connect.CodeUnavailable, errors.New("reset"))), connect.CodeAborted, pushv1.Reason_UNSETTLED, 0},
		{"a peer is late", p.explain("b2", connect.NewError(connect.CodeDeadlineExceeded, errors.New("late"))), connect.CodeAborted, pushv1.Reason_UNSETTLED, 0},
		{"a peer reached some", p.explain("b2", reachedThree), connect.CodeAborted, pushv1.Reason_UNSETTLED, 3},
		{"and we some", alsoReached(p.explain("b2", reachedThree), 2), connect.CodeAborted, pushv1.Reason_UNSETTLED, 5},
		{"reused there", p.explain("b2", connect.NewError(connect.CodeAlreadyExists, errors.New("x"))), connect.CodeAlreadyExists, pushv1.Reason_MESSAGE_REUSED, 0},
		{"reused and unsettled", errors.Join(ErrUnsettled, ErrMessageReused), connect.CodeAlreadyExists, pushv1.Reason_MESSAGE_REUSED, 0},
		{"no members", ErrNoMembers, connect.CodeUnavailable, pushv1.Reason_NO_MEMBERS, 0},
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
	if !canStandIn(p.explain("b2", refused)) || canStandIn(p.explain("b2", reachedThree)) {
		t.Error("a home that is gone is stood in for; one that has begun is not")
	}
}

// What waits for a slow client must not be forgotten, however old; what is over is, some time after it was last asked for.
func TestRecentForgets(t *testing.T) {
	r, err := newRecent()
	if err != nil {
		t.Fatal(err)
	}
	key := recentKey{"alice", "m1"}
	d := r.join(key, 7)
	long := time.Now().Add(-2 * rememberFor).UnixNano()
	d.claim([]*Session{{id: "s1"}, {id: "s2"}}, "s2")
	d.touched.Store(long)
	if r.join(key, 7) != d {
		t.Fatal("a delivery that is under way was forgotten")
	}
	d.settle("s1", true)
	if again := d.claim([]*Session{{id: "s1"}}, ""); len(again) != 0 {
		t.Error("s1 is asked twice")
	}
	if r.find(key) != d {
		t.Fatal("forgotten right after it was asked for")
	}
	d.touched.Store(long)
	if r.find(key) != nil {
		t.Error("remembered for ever")
	}
	if r.join(key, 7) == d {
		t.Error("joined what is over")
	}
}

// What a repeat gives to newer sessions is not for earlier callers to wait for.
func TestWaitIsForOnesOwn(t *testing.T) {
	d := newDelivery(1)
	d.claim([]*Session{{id: "s1"}}, "")
	own := d.settled
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
	d := newDelivery(1)
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
