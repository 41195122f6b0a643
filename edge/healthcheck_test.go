package edge

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/discovery"
)

// patient is a backend that echoes, and answers /healthz as it feels.
func patient(name string, ill *atomic.Bool) backendFunc {
	return func(conn net.Conn, br *bufio.Reader, r *http.Request) {
		switch {
		case r.URL.Path != "/healthz":
			echo(name)(conn, br, r)
		case ill.Load():
			say(conn, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
		default:
			say(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	}
}

// Members of a list leave the ring by their health checks and come back by them; sessions stay where they are. A reload can turn checks off.
func TestHealthCheck(t *testing.T) {
	var ill atomic.Bool
	b0, b1 := listenBackend(t, patient("b0", new(atomic.Bool))), listenBackend(t, patient("b1", &ill))
	cfg := Config{
		Membership: Membership{Backends: "b0=" + b0 + ",b1=" + b1},
		Services:   map[string]ServiceConfig{DefaultService: {HealthCheck: HealthCheck{HTTP: "/healthz", Interval: 20 * time.Millisecond}}},
		Listen:     []Listener{{Addr: "127.0.0.1:0"}}, Admin: Admin{Addr: "127.0.0.1:0"},
	}
	e := start(t, cfg)
	user := e.ownedBy("b1")
	c := e.send(upgradeTo("/ws?user=" + user))
	c.head()
	c.line()

	ill.Store(true)
	e.await(func(s *discovery.Snapshot) bool { return s.Ring.Owner(user) == "b0" })
	other := e.send(upgradeTo("/ws?user=" + user))
	other.head()
	if got := other.line(); got != "b0/"+user {
		t.Errorf("the owner is ill, and a new session came to %q", got)
	}
	if _, err := io.WriteString(c, "still there\n"); err != nil || c.line() != "still there" {
		t.Errorf("the old session broke: %v", err)
	}
	if got := e.metric(`selvedge_discovery_check_failures_total{reason="status",service="default"}`); got == "0" || got == "absent" {
		t.Errorf("failed checks: %s", got)
	}

	cfg.Services = map[string]ServiceConfig{}
	if err := e.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	e.await(func(s *discovery.Snapshot) bool { return s.Ring.Owner(user) == "b1" })
	cfg.Services = map[string]ServiceConfig{DefaultService: {HealthCheck: HealthCheck{HTTP: "/healthz", Interval: 20 * time.Millisecond}}}
	if err := e.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	e.await(func(s *discovery.Snapshot) bool { return s.Ring.Owner(user) == "b0" })
	ill.Store(false)
	e.await(func(s *discovery.Snapshot) bool { return s.Ring.Owner(user) == "b1" })
}

// A check that nobody should trust is refused, with the way out.
func TestHealthCheckRefused(t *testing.T) {
	registry := filepath.Join(t.TempDir(), "members.yaml")
	if err := os.WriteFile(registry, []byte("services: {default: [{id: b1, addr: 'h:1', rpc: 'h:2'}]}"), 0o600); err != nil {
		t.Fatal(err)
	}
	check := HealthCheck{TCP: true}
	for _, test := range []struct {
		members Membership
		check   HealthCheck
		says    string
	}{
		{Membership{Consul: new(discovery.ConsulConfig)}, check, "the members are in Consul"},
		{Membership{Backends: "b0=h:1,b1=h:1/2"}, check, `"b1" has an RPC port`},
		{Membership{Registry: registry}, check, `"b1" has an RPC port`},
		{Membership{Backends: "b0=h:1"}, HealthCheck{Interval: time.Second}, "set http to a path"},
	} {
		_, err := New(Config{Membership: test.members, Services: map[string]ServiceConfig{DefaultService: {HealthCheck: test.check}}})
		if err == nil || !strings.Contains(err.Error(), "health_check") || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%+v: %v; want it to say %q", test.members, err, test.says)
		}
	}
	if _, err := New(Config{Membership: Membership{Backends: "b0=h:1"}, Services: map[string]ServiceConfig{DefaultService: {HealthCheck: check}}}); err != nil {
		t.Error(err)
	}
}

// A member with a name is as quick to reach as one with an address: what was looked up is in the snapshot.
func TestNamedMemberOnTheReactor(t *testing.T) {
	fast(t)
	_, port, err := net.SplitHostPort(listenBackend(t, echo("b0")))
	if err != nil {
		t.Fatal(err)
	}
	e := start(t, Config{Membership: Membership{Backends: fmt.Sprintf("b0=localhost:%s", port)}})
	c := e.send(upgradeTo("/ws?user=alice"))
	if got := c.head(); got.StatusCode != http.StatusSwitchingProtocols || c.line() != "b0/alice" {
		t.Errorf("answered %s", got.Status)
	}
	if n := e.handedOver(); n != 0 {
		t.Errorf("%d connections were left to net/http", n)
	}
}

// The certificate of a member that is registered by name is held against the name, not against what was looked up; by health checks, too.
func TestNamedMemberTLS(t *testing.T) {
	a := newAuthority(t)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{a.pair(a.leaf("localhost"))}})
	if err != nil {
		t.Fatal(err)
	}
	backend := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "well") }))
	backend.Listener.Close()
	backend.Listener = ln
	backend.Start()
	t.Cleanup(backend.Close)
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	e := start(t, Config{
		Membership: Membership{Backends: "b0=localhost:" + port},
		Services: map[string]ServiceConfig{DefaultService: {
			TLS: &MemberTLS{CA: a.file}, HealthCheck: HealthCheck{HTTP: "/"}, PanicThreshold: -1,
		}},
	})
	if got := e.send("GET /?user=alice HTTP/1.1\r\nHost: edge.test\r\n\r\n").head(); got.StatusCode != http.StatusOK {
		t.Errorf("answered %s", got.Status)
	}
	if n := e.snapshot().Ring.Len(); n != 1 {
		t.Errorf("%d members in the ring", n)
	}
}
