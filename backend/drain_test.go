package backend_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/testkit"
)

// watchMember returns what the registry says of a member now.
func watchMember(t *testing.T, c *cluster, id string) func() (discovery.Member, bool) {
	view := discovery.NewView("default", c.registry, nil)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- view.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	<-view.Ready()
	return func() (discovery.Member, bool) { return view.Snapshot().Member(id) }
}

func TestDrain(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, func(cfg *backend.Config) {
		cfg.Admin = "127.0.0.1:0"
		cfg.Move.MaxPerSecond = 0.5
		cfg.Move.Spread = 2 * time.Second // so that the drain lasts long enough to be looked at
	})
	m, other := c.members[0], c.members[1]
	registered := watchMember(t, c, m.ID())
	if status, text := get(t, "http://"+m.AdminAddr().String()+"/readyz"); status != 200 {
		t.Fatalf("readyz: %d %s", status, text)
	}
	var users []string
	var clients []*client
	for i := 0; len(users) < 8; i++ {
		if user := fmt.Sprint("user-", i); c.home(user) == m {
			users, clients = append(users, user), append(clients, m.dial(t, user, "/"))
		}
	}
	result := make(chan error, 1)
	go func() { result <- m.stop() }()

	testkit.Eventually(t, 5*time.Second, func() bool {
		self, known := registered()
		return known && self.State == discovery.Draining
	}, "the registry to show it draining")
	s := m.socket(t)
	s.write([]byte(handshake(users[0])))
	if answer := s.answer(); answer.StatusCode != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") == "" {
		t.Errorf("new session: %s, Retry-After %q", answer.Status, answer.Header.Get("Retry-After"))
	}
	if status, text := get(t, "http://"+m.AdminAddr().String()+"/readyz"); status != 503 || !strings.Contains(text, "draining") {
		t.Errorf("readyz while draining: %d %q", status, text)
	}
	if status, _ := get(t, "http://"+m.AdminAddr().String()+"/healthz"); status != 200 {
		t.Errorf("healthz while draining: %d", status)
	}
	// It is out of the ring and still reached, by the new home's question.
	testkit.Eventually(t, 5*time.Second, func() bool { return other.Owner(users[7]) == other.ID() }, "the ring without it")
	n, err := other.Push(context.Background(), users[7], backend.Text("on your way"))
	if err != nil {
		t.Errorf("push while it drains: %v", err)
	}
	if n == 1 { // else it has gone already
		clients[7].want("on your way")
	}
	for _, client := range clients {
		client.SetReadDeadline(time.Now().Add(10 * time.Second))
		if code, reason, err := client.readClose(); code != 1012 || reason != "restart" {
			t.Errorf("closed with %d %q, %v", code, reason, err)
		}
		client.Close()
	}
	if err := <-result; err != nil {
		t.Errorf("Run: %v", err)
	}
	testkit.Eventually(t, 5*time.Second, func() bool { _, known := registered(); return !known }, "the registry to have forgotten it")
}

// A client that ignores its close frame is given up after the close handshake's time.
func TestDrainWithClientThatNeverCloses(t *testing.T) {
	t.Parallel()
	ended := make(chan backend.CloseReason, 1)
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.OnClose = func(_ *backend.Session, reason backend.CloseReason) { ended <- reason }
	})
	m := c.members[0]
	s := m.open(t, "alice")
	start := time.Now()
	if err := m.stop(); err != nil {
		t.Fatalf("Run: %v", err)
	}
	if took := time.Since(start); took > 9*time.Second {
		t.Errorf("it took %v", took)
	}
	wantReason(t, ended, backend.Restart) // before Run returned
	s.want("close 1012 restart", "end")
}

// A pace that would take longer than the operator gives is quickened.
func TestDrainIsDoneInTime(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.DrainTimeout = 2 * time.Second
		cfg.Move.Spread = time.Hour // one a second
	})
	m := c.members[0]
	var sockets []*socket
	for range 20 {
		sockets = append(sockets, m.open(t, "alice"))
	}
	result := make(chan error, 1)
	go func() { result <- m.stop() }()
	for _, s := range sockets {
		s.want("close 1012 restart", "end")
		s.Close()
	}
	if err := <-result; err != nil {
		t.Errorf("Run: %v; want nil", err)
	}
}

func TestDrainTimeout(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.DrainTimeout = time.Millisecond // over before the first session can be closed
	})
	m := c.members[0]
	var sockets []*socket
	for range 5 {
		sockets = append(sockets, m.open(t, "alice"))
	}
	result := make(chan error, 1)
	go func() { result <- m.stop() }()
	for _, s := range sockets {
		s.want("close 1001 stopped", "end")
		s.Close()
	}
	if err := <-result; !errors.Is(err, backend.ErrDrainTimeout) {
		t.Errorf("Run: %v; want ErrDrainTimeout", err)
	}
}

// A handler that never returns does not keep the process from ending, and is named.
func TestStopWithHandlerThatHangs(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	started := make(chan struct{})
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.OnMessage = func(*backend.Session, backend.Message) { close(started); <-gate }
	})
	m := c.members[0]
	s := m.open(t, "alice", text("hang")...)
	<-started
	s.Close()
	err := m.stop()
	if err == nil || !strings.Contains(err.Error(), "1 sessions have not returned") {
		t.Errorf("Run: %v; want an error that names the handler left behind", err)
	}
	close(gate)
}

// Handler, mounted in a server of the service's own, refuses when the member is not there to hold sessions.
func TestHandlerOutsideRun(t *testing.T) {
	c := newCluster(t, 1, nil)
	m := c.members[0]
	if err := m.stop(); err != nil {
		t.Fatal(err)
	}
	idle, err := backend.New(backend.Config{ID: "x", Listen: "127.0.0.1:0", Membership: backend.Membership{Memory: c.registry}})
	if err != nil {
		t.Fatal(err)
	}
	for name, handler := range map[string]http.Handler{"before": idle.Handler(), "after": m.Handler()} {
		if status, header := roundTrip(t, handler, handshake("alice")); status != 503 || header.Get("Retry-After") == "" {
			t.Errorf("%s Run: %d, %v", name, status, header)
		}
	}
}
