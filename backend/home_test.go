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
}

// What a repeat gives to newer sessions is not for earlier callers to wait for.
func TestWaitIsForOnesOwn(t *testing.T) {
	d := newDelivery()
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
