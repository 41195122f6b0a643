package backend_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is some members in this process, known to each other by an in-memory registry.
type cluster struct {
	t        *testing.T
	registry *discovery.Memory
	members  []*member
}

type member struct {
	*backend.Backend
	stop     func() error // drains; waits for Run to return
	registry *prometheus.Registry
}

func newCluster(t *testing.T, n int, change func(*backend.Config)) *cluster {
	c := &cluster{t: t, registry: discovery.NewMemory()}
	for range n {
		c.add(change)
	}
	return c
}

func (c *cluster) add(change func(*backend.Config)) *member {
	c.t.Helper()
	cfg := backend.Config{
		ID: fmt.Sprintf("b%d", len(c.members)+1), Listen: "127.0.0.1:0", RPC: "127.0.0.1:0",
		Membership:   backend.Membership{Memory: c.registry},
		Move:         backend.Pace{Settle: 50 * time.Millisecond, Spread: 200 * time.Millisecond, MaxPerSecond: 1},
		DrainTimeout: 5 * time.Second,
		Logger:       zaptest.NewLogger(c.t),
	}
	if change != nil {
		change(&cfg)
	}
	if cfg.Metrics == nil {
		cfg.Metrics = prometheus.NewRegistry()
	}
	b, err := backend.New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- b.Run(ctx) }()
	select {
	case <-b.Ready():
	case err := <-result:
		c.t.Fatalf("member does not come up: %v", err)
	}
	m := &member{Backend: b, registry: cfg.Metrics}
	stopped := false
	m.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-result
	}
	c.t.Cleanup(func() {
		if err := m.stop(); err != nil {
			c.t.Errorf("Run: %v", err)
		}
	})
	c.members = append(c.members, m)
	testkit.Eventually(c.t, 5*time.Second, func() bool {
		for _, m := range c.members {
			if metric(c.t, m.registry, "selvedge_ring_members") < float64(len(c.members)) {
				return false
			}
		}
		return true
	}, "all members to know each other")
	return m
}

// client is one WebSocket of a user, connected to a member as an edge would.
type client struct {
	net.Conn
	t *testing.T
}

func (m *member) dial(t *testing.T, user, path string) *client {
	t.Helper()
	return m.dialWith(t, http.Header{backend.UserHeader: {user}}, path)
}

func (m *member) dialWith(t *testing.T, header http.Header, path string) *client {
	t.Helper()
	user := header.Get(backend.UserHeader)
	dialer := ws.Dialer{
		Timeout: 5 * time.Second,
		Header:  ws.HandshakeHeaderHTTP(header),
	}
	conn, br, _, err := dialer.Dial(context.Background(), "ws://"+m.Addr().String()+path)
	if err != nil {
		t.Fatalf("dial as %s: %v", user, err)
	}
	t.Cleanup(func() { conn.Close() })
	if br != nil { // what was pushed while the session opened came right behind the 101
		conn = &buffered{conn, br}
	}
	return &client{conn, t}
}

// buffered is a connection of which some was read ahead.
type buffered struct {
	net.Conn
	ahead *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.ahead.Read(p) }

func (c *client) want(text string) {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	got, err := wsutil.ReadServerText(c)
	if err != nil {
		c.t.Fatalf("want %q, got error %v", text, err)
	}
	if string(got) != text {
		c.t.Fatalf("got %q, want %q", got, text)
	}
}

func (c *client) wantClose(code ws.StatusCode) {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	got, _, err := c.readClose()
	if err != nil || got != code {
		c.t.Fatalf("got close code %d, %v; want %d", got, err, code)
	}
}

// readClose reads up to a close frame. (wsutil refuses codes that came after RFC 6455, 1012 among them.)
func (c *client) readClose() (ws.StatusCode, string, error) {
	for {
		f, err := ws.ReadFrame(c)
		if err != nil {
			return 0, "", err
		}
		if f.Header.OpCode == ws.OpClose {
			code, reason := ws.ParseCloseFrameData(f.Payload)
			return code, reason, nil
		}
	}
}

// home is the member that owns user, once all members say the same.
func (c *cluster) home(user string) *member {
	c.t.Helper()
	var home *member
	testkit.Eventually(c.t, 5*time.Second, func() bool {
		home = nil
		owner := c.members[0].Owner(user)
		for _, m := range c.members {
			if m.Owner(user) != owner {
				return false
			}
			if m.ID() == owner {
				home = m
			}
		}
		return home != nil
	}, "one home for "+user)
	return home
}

// elsewhere is a member that does not own user.
func (c *cluster) elsewhere(user string) *member {
	home := c.home(user)
	for _, m := range c.members {
		if m != home {
			return m
		}
	}
	c.t.Fatal("all members own " + user)
	return nil
}

// ghost is a member that stands in the registry although its process is gone.
func ghost(m *member) discovery.Member {
	return discovery.Member{ID: m.ID(), Incarnation: 1, Addr: m.Addr().String(), RPCAddr: m.RPCAddr().String(), Weight: 1}
}
