package backend_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/testkit"
)

func (m *member) asked(t *testing.T) pushv1.RingServiceClient {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	return pushv1.NewRingServiceClient(client, "http://"+m.RPCAddr().String())
}

func (m *member) kick(t *testing.T, user string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	push := pushv1.NewPushServiceClient(client, "http://"+m.RPCAddr().String())
	if _, err := push.Disconnect(context.Background(), connect.NewRequest(&pushv1.DisconnectRequest{User: user})); err != nil {
		t.Fatal(err)
	}
}

func (m *member) status(t *testing.T, closuresAfter uint64) *pushv1.StatusResponse {
	t.Helper()
	response, err := m.asked(t).Status(context.Background(), connect.NewRequest(&pushv1.StatusRequest{Member: m.ID(), ClosuresAfter: closuresAfter}))
	if err != nil {
		t.Fatal(err)
	}
	return response.Msg
}

func TestStatus(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, nil)
	m, user := c.members[0], ""
	for i := 0; user == ""; i++ {
		if u := fmt.Sprint("user-", i); c.home(u) == m {
			user = u
		}
	}
	if s := m.status(t, 0); s.Sessions != 0 || s.Pushes != 0 || len(s.Closures) != 0 || s.State != "serving" || s.Member != m.ID() {
		t.Errorf("before anything happens: %v", s)
	}
	if mine, other := m.status(t, 0).RingDigest, c.members[1].status(t, 0).RingDigest; mine != other || mine == "" {
		t.Errorf("members of one ring tell digests %q and %q", mine, other)
	}
	client := m.dial(t, user, "/?device=phone")
	for range 3 {
		if _, err := m.Push(context.Background(), user, backend.Text("hi")); err != nil {
			t.Fatal(err)
		}
	}
	m.kick(t, user)
	if code, _, err := client.readClose(); code != 1008 || err != nil {
		t.Errorf("kicked with %d, %v", code, err)
	}
	client.Close()
	var first *pushv1.StatusResponse
	testkit.Eventually(t, 5*time.Second, func() bool {
		first = m.status(t, 0)
		return len(first.Closures) == 1
	}, "the closure to be told")
	if k := first.Closures[0]; k.User != user || k.Device != "phone" || k.Reason != "kick" || k.AgoMs > 60_000 || k.LastedMs > 60_000 {
		t.Errorf("closure %v", k)
	}
	if again := m.status(t, first.Closures[0].Number); len(again.Closures) != 0 {
		t.Errorf("what has been told is told again: %v", again.Closures)
	}
	if _, err := m.asked(t).Status(context.Background(), connect.NewRequest(&pushv1.StatusRequest{Member: "b9"})); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("asked for another: %v", err)
	}
}

// An operator's drain is that of SIGTERM, but the process goes on.
func TestDrainByOperator(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, func(cfg *backend.Config) {
		cfg.Admin = "127.0.0.1:0"
		cfg.Move.MaxPerSecond = 1
	})
	m, other := c.members[0], c.members[1]
	registered := watchMember(t, c, m.ID())
	users := newCrowd(t, c, 16)
	here := uint32(m.Sessions())
	if here == 0 || here == 16 {
		t.Fatalf("%d of 16 sessions here", here)
	}
	if _, err := m.asked(t).Drain(context.Background(), connect.NewRequest(&pushv1.DrainRequest{Member: other.ID()})); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("another member is meant: %v", err)
	}
	for range 2 { // the second time nothing more happens
		response, err := m.asked(t).Drain(context.Background(), connect.NewRequest(&pushv1.DrainRequest{Member: m.ID()}))
		if err != nil || response.Msg.Sessions > here {
			t.Fatalf("%v, %v", response, err)
		}
	}
	testkit.Eventually(t, 10*time.Second, func() bool { return m.Sessions() == 0 }, "all sessions to be sent away")
	testkit.Eventually(t, 10*time.Second, func() bool { return len(users.seen()) >= int(here) }, "all of them to hear of it")
	for user, home := range users.homes {
		closed, was := users.seen()[user]
		if home == m.ID() && (!was || closed.code != 1012 || closed.reason != "restart") {
			t.Errorf("%s, held here, was closed with %+v", user, closed)
		}
		if home == other.ID() && was {
			t.Errorf("%s, held by the other, was closed with %+v", user, closed)
		}
	}
	if self, known := registered(); !known || self.State != discovery.Draining {
		t.Errorf("the registry has %+v, want it to know the member as draining", self)
	}
	if s := m.status(t, 0); s.State != "draining" || s.Misplaced != 0 {
		t.Errorf("it says of itself %v", s)
	}
	if status, _ := get(t, "http://"+m.AdminAddr().String()+"/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("readyz: %d", status)
	}
	// A drained member still answers for all.
	for user, home := range users.homes {
		if home == other.ID() {
			if n, err := m.Push(context.Background(), user, backend.Text("by the drained one")); n != 1 || err != nil {
				t.Errorf("push by way of the drained member: %d, %v", n, err)
			}
			break
		}
	}
	if err := m.stop(); err != nil {
		t.Errorf("stopped after the drain: %v", err)
	}
}
