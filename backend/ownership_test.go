package backend_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zaptest"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/backend/sender"
	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/testkit"
)

// Whoever is held dead must close its sessions as soon as it hears of it, and is a member again right after.
func TestBuriedAliveJoinsAnew(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	home := c.home("alice")
	session := home.dial(t, "alice", "/")
	s := newSender(t, sender.Config{Via: "http://" + c.elsewhere("alice").RPCAddr().String()})
	if known, err := s.Bury(context.Background(), home.ID()); !known || err != nil {
		t.Fatalf("bury: %t, %v", known, err)
	}
	session.wantClose(1012)
	if n := metric(t, home.registry, "selvedge_backend_fences_total"); n != 1 {
		t.Errorf("%v fences, want 1", n)
	}
	var again *client
	testkit.Eventually(t, 10*time.Second, func() bool {
		status, _ := home.upgrade(t, http.Header{backend.UserHeader: {"alice"}})
		return status == http.StatusSwitchingProtocols
	}, "the member to take sessions again")
	again = home.dial(t, "alice", "/")
	for _, m := range c.members {
		text := "from " + m.ID()
		if n, err := m.Push(context.Background(), "alice", backend.Text(text)); n < 1 || err != nil {
			t.Errorf("push by %s: %d, %v", m.ID(), n, err)
		}
		again.want(text)
	}
	if known, err := s.Bury(context.Background(), "nobody"); known || err != nil {
		t.Errorf("bury nobody: %t, %v", known, err)
	}
}

// A host that hangs keeps a newcomer from joining, and pushes from being certain, until somebody knows better.
func TestBuryByHand(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil)
	hung, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer hung.Close()
	c.registry.Put("default", discovery.Member{
		ID: "b9", Incarnation: 1, Addr: hung.Addr().String(), RPCAddr: hung.Addr().String(), Weight: 1, Health: discovery.Critical,
	})
	m := c.members[0]
	push := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		_, err := m.Push(ctx, "alice", backend.Text("hi"))
		return err
	}
	testkit.Eventually(t, 5*time.Second, func() bool { return errors.Is(push(), backend.ErrUnsettled) }, "a push to be unsettled")

	cfg := backend.Config{
		ID: "b2", Listen: "127.0.0.1:0", RPC: "127.0.0.1:0", Membership: backend.Membership{Memory: c.registry},
		Metrics: prometheus.NewRegistry(), Logger: zaptest.NewLogger(t),
	}
	newcomer, err := backend.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- newcomer.Run(ctx) }()
	defer func() { stop(); <-ended }()
	select {
	case <-newcomer.Ready():
		t.Fatal("it joined although a member has not acknowledged it")
	case <-time.After(700 * time.Millisecond):
	}
	s := newSender(t, sender.Config{Via: "http://" + m.RPCAddr().String()})
	if known, err := s.Bury(context.Background(), "b9"); !known || err != nil {
		t.Fatalf("bury: %t, %v", known, err)
	}
	select {
	case <-newcomer.Ready():
	case <-time.After(5 * time.Second):
		t.Fatal("it does not join")
	}
	if err := push(); err != nil {
		t.Errorf("push: %v", err)
	}
}

// Two processes with one id would send each other away for ever: the earlier one gives up.
func TestSuperseded(t *testing.T) {
	t.Parallel()
	registry := discovery.NewMemory()
	run := func() (*backend.Backend, <-chan error, context.CancelFunc) {
		b, err := backend.New(backend.Config{
			ID: "b1", Listen: "127.0.0.1:0", RPC: "127.0.0.1:0", Membership: backend.Membership{Memory: registry},
			Metrics: prometheus.NewRegistry(), Logger: zaptest.NewLogger(t),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- b.Run(ctx) }()
		return b, ended, cancel
	}
	first, firstEnded, stopFirst := run()
	defer stopFirst()
	<-first.Ready()
	_, secondEnded, stopSecond := run()
	select {
	case err := <-firstEnded:
		if !errors.Is(err, backend.ErrSuperseded) {
			t.Errorf("%v, want that it is superseded", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the first goes on")
	}
	stopSecond()
	if err := <-secondEnded; err != nil {
		t.Errorf("the second: %v", err)
	}
}

// A push that comes after a later one of its sender is not delivered, and its sender is told.
func TestOvertaken(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, nil)
	session := c.home("alice").dial(t, "alice", "/")
	client := pushv1.NewPushServiceClient(http.DefaultClient, "http://"+c.elsewhere("alice").RPCAddr().String())
	push := func(sequence uint64, sender string) error {
		_, err := client.Push(context.Background(), connect.NewRequest(&pushv1.PushRequest{
			User: "alice", Payload: &pushv1.PushRequest_Text{Text: fmt.Sprint(sender, sequence)}, Sender: sender, Sequence: sequence,
			MessageId: fmt.Sprint(sender, sequence),
		}))
		return err
	}
	if err := push(2, "s"); err != nil {
		t.Fatal(err)
	}
	session.want("s2")
	err := push(1, "s")
	if connect.CodeOf(err) != connect.CodeFailedPrecondition || pushv1.DetailOf(err).GetReason() != pushv1.Reason_OVERTAKEN {
		t.Errorf("overtaken: %v, %v", err, pushv1.DetailOf(err))
	}
	if err := push(2, "s"); err != nil {
		t.Errorf("a repeat: %v", err)
	}
	if err := push(1, "other"); err != nil {
		t.Errorf("another sender: %v", err)
	}
	session.want("other1")
	if err := push(3, "s"); err != nil {
		t.Error(err)
	}
	session.want("s3")
	// A repeat reaches who was not there the first time, unless a later push has.
	other := c.home("alice").dial(t, "alice", "/")
	for _, sequence := range []uint64{2, 3, 2, 4} {
		if err := push(sequence, "s"); err != nil {
			t.Errorf("push %d: %v", sequence, err)
		}
	}
	other.want("s3")
	other.want("s4")
}

// With all, whoever was connected when the ring changed is to connect again, and stays then.
func TestMoveAll(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, func(cfg *backend.Config) { cfg.OnMove = backend.MoveAll })
	session := c.members[0].dial(t, "alice", "/")
	c.add(func(cfg *backend.Config) { cfg.OnMove = backend.MoveAll })
	later := ""
	for i := 0; later == ""; i++ {
		if user := fmt.Sprint("user-", i); c.home(user) == c.members[0] {
			later = user
		}
	}
	undisturbed := c.members[0].dial(t, later, "/") // came after the change, and before anybody was told to go: one a second is
	session.wantClose(1012)
	again := c.home("alice").dial(t, "alice", "/")
	undisturbed.stays(2 * time.Second)
	again.stays(100 * time.Millisecond)
}

// A client whose edge could not reach the home is not sent back there, when one that came later is.
func TestStrayedIsLeftAlone(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	away := c.elsewhere("alice")
	strayed := away.dialWith(t, http.Header{backend.UserHeader: {"alice"}, backend.PassedOverHeader: {"nobody, " + c.home("alice").ID()}}, "/")
	away.dial(t, "alice", "/").wantClose(1012)
	strayed.stays(2500 * time.Millisecond) // two sessions go at one a second
	if n, err := c.home("alice").Push(context.Background(), "alice", backend.Text("found")); n != 1 || err != nil {
		t.Fatalf("push: %d, %v", n, err)
	}
	strayed.want("found")
}

// Of a member that has no RPC listener nobody knows whom it holds: its users are not said to be offline.
func TestForeignOwner(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil)
	m := c.members[0]
	c.registry.Put("default", discovery.Member{ID: "nginx", Addr: "127.0.0.1:1", Weight: 3})
	theirs, ours := "", ""
	testkit.Eventually(t, 5*time.Second, func() bool {
		for i := range 100 {
			if user := fmt.Sprint("user-", i); m.Owner(user) == "nginx" {
				theirs = user
			} else {
				ours = user
			}
		}
		return theirs != "" && ours != ""
	}, "each to own somebody")
	if n, err := m.Push(context.Background(), theirs, backend.Text("hi")); err == nil {
		t.Errorf("a push to a user of a member that cannot be asked: %d sessions and no error", n)
	}
	if n, err := m.Push(context.Background(), ours, backend.Text("hi")); n != 0 || err != nil {
		t.Errorf("a push to one of ours: %d, %v", n, err)
	}
}

// A push that comes while its user is between two members waits for him.
func TestPushWaitsForAMove(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, nil)
	home := c.home("alice")
	c.elsewhere("alice").dial(t, "alice", "/").wantClose(1012)
	outcome := make(chan error, 1)
	go func() {
		n, err := home.Push(context.Background(), "alice", backend.Text("hi"))
		if err == nil && n != 1 {
			err = fmt.Errorf("%d sessions", n)
		}
		outcome <- err
	}()
	select {
	case err := <-outcome:
		t.Fatalf("the push did not wait: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	home.dial(t, "alice", "/").want("hi")
	if err := <-outcome; err != nil {
		t.Error(err)
	}
	// Who does not come is offline after all.
	c.elsewhere("bob").dial(t, "bob", "/").wantClose(1012)
	if n, err := c.home("bob").Push(context.Background(), "bob", backend.Text("hi")); n != 0 || err != nil {
		t.Errorf("push to one who stays away: %d, %v", n, err)
	}
}

// An edge can tell that it is the member and not the service that refuses.
func TestRefusalsSayWhy(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, nil)
	m := c.members[1]
	session := m.dial(t, "alice", "/") // keeps the drain waiting for the client's side of the close
	stopped := make(chan error, 1)
	go func() { stopped <- m.stop() }()
	testkit.Eventually(t, 5*time.Second, func() bool {
		status, header := m.upgrade(t, http.Header{backend.UserHeader: {"bob"}})
		return status == http.StatusServiceUnavailable && header.Get(backend.RefusedHeader) == "draining" && header.Get("Retry-After") == "1"
	}, "a refusal")
	session.Close()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// upgrade asks for a WebSocket and hangs up; 0 where the member does not answer.
func (m *member) upgrade(t *testing.T, header http.Header) (status int, answer http.Header) {
	t.Helper()
	conn, err := net.Dial("tcp", m.Addr().String())
	if err != nil {
		return 0, nil
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	request, _ := http.NewRequest(http.MethodGet, "http://"+m.Addr().String()+"/", http.NoBody)
	request.Header = header.Clone()
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", "websocket")
	request.Header.Set("Sec-WebSocket-Version", "13")
	request.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	if err := request.Write(conn); err != nil {
		return 0, nil
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		return 0, nil
	}
	response.Body.Close()
	return response.StatusCode, response.Header
}
