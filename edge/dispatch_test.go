package edge

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/identity"
)

func resolve(target string, fields ...string) string {
	return "GET /.well-known/selvedge/resolve" + target + " HTTP/1.1\r\nHost: edge.test:81\r\nConnection: close\r\n" +
		strings.Join(append(fields, ""), "\r\n") + "\r\n"
}

// named reads where a client is sent to, and what the member there makes of the ticket.
func (c *client) named(path string) (resolved, identity.Ticket) {
	c.t.Helper()
	answer := c.head()
	body, err := io.ReadAll(answer.Body)
	var says resolved
	if err == nil {
		err = json.Unmarshal(body, &says)
	}
	if err != nil || answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != "application/json" ||
		answer.Header.Get("Cache-Control") != "no-store" || answer.Header.Get("Access-Control-Allow-Origin") != "" {
		c.t.Fatalf("answered %s %v %s, %v", answer.Status, answer.Header, body, err)
	}
	u, err := url.Parse(says.URL)
	if err != nil {
		c.t.Fatal(err)
	}
	query, text, _ := identity.CutTicket(u.RawQuery)
	target := strings.TrimPrefix(u.EscapedPath(), "/at") // the members' proxies take that away
	if query != "" {
		target += "?" + query
	}
	ticket, err := guardOf(c.t, path, DefaultService, says.Backend).Ticket(text, target, time.Now())
	if err != nil {
		c.t.Errorf("%s at %s: %v", says.URL, says.Backend, err)
	}
	if left := time.Until(says.Expires); left <= 0 || left > identity.TicketLife || !ticket.Expires.Equal(says.Expires) {
		c.t.Errorf("expires %v, the ticket %v", says.Expires, ticket.Expires)
	}
	return says, ticket
}

// listening takes connections and says nothing, as a member does that is knocked at.
func listening(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.Addr().String()
}

// dispatching is an edge with members b0, b1, ... that can be connected to directly.
func dispatching(t *testing.T, change func(*Config), members ...discovery.Member) (*running, *discovery.Memory, string) {
	path := secretFile(t, "1")
	registry := discovery.NewMemory()
	for i, m := range members {
		m.ID, m.Weight = fmt.Sprint("b", i), 1
		registry.Put(DefaultService, m)
	}
	cfg := Config{
		Membership: Membership{Memory: registry}, Routes: []Route{{}, {Path: "/open", Key: "none"}, {Path: "/u/", Key: "path:2"}},
		Services: map[string]ServiceConfig{DefaultService: {EdgeSecretFile: path}},
	}
	if change != nil {
		change(&cfg)
	}
	return start(t, cfg), registry, path
}

func TestDispatch(t *testing.T) {
	e, _, path := dispatching(t, nil, discovery.Member{Addr: listening(t), PublicURL: "wss://b0.test/at/"},
		discovery.Member{Addr: listening(t), PublicURL: "wss://b1.test/at"})
	for _, owner := range []string{"b0", "b1"} {
		user := e.ownedBy(owner)
		for query, target := range map[string]string{
			"?path=/ws&user=" + user:                          "/ws?user=" + user,
			"?user=" + user:                                   "/?user=" + user,
			"?device=a%26b&path=%2Fws%2Fx&user=" + user:       "/ws/x?device=a%26b&user=" + user,
			"?path=/u/" + user:                                "/u/" + user,
			"?path=/a%2520b|c&user=" + user + "&user=" + user: "/a%20b%7Cc?user=" + user + "&user=" + user,
		} {
			says, ticket := e.send(resolve(query, "Origin: https://app.test")).named(path)
			want := "wss://" + owner + ".test/at" + target
			if says.Backend != owner || says.Ring != e.snapshot().Ring.Digest() || !strings.HasPrefix(says.URL, want) {
				t.Errorf("%s: %+v, want %s", query, says, want)
			}
			if ticket.User != user || ticket.Target != target || ticket.Origin != "http://edge.test:81" || ticket.PassedOver != "" {
				t.Errorf("%s: ticket %+v", query, ticket)
			}
		}
	}
	for request, status := range map[string]int{
		resolve("?path=/ws"):                          400,
		resolve("?path=/ws&user="):                    400,
		resolve("?path=ws&user=a"):                    400,
		resolve("?path=/ws?x=1&user=a"):               400,
		resolve("?path=/a&path=/b&user=a"):            400,
		resolve("?path=/%ff%zz&user=a"):               400,
		resolve("?path=/../x&user=a"):                 400,
		resolve("?path=/open&user=a"):                 400, // the route has no user
		resolve("?path=/ws&user=a&selvedge_ticket=x"): 400,
		strings.Replace(resolve("?path=/ws&user=a"), "edge.test", strings.Repeat("x", 400), 1):                  400,
		strings.Replace(resolve("?path=/ws&user=a"), "GET", "POST", 1):                                          405,
		strings.Replace(resolve("?path=/ws&user=a", "Access-Control-Request-Method: GET"), "GET", "OPTIONS", 1): 405,
	} {
		e.send(request).refused(status)
	}
}

// Behind a proxy that is trusted, a client is sent back to where it came from.
func TestDispatchOrigin(t *testing.T) {
	e, _, path := dispatching(t, func(c *Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} },
		discovery.Member{Addr: listening(t), PublicURL: "ws://b0.test"})
	_, ticket := e.send(resolve("?user=a", "X-Forwarded-Proto: https", "X-Forwarded-Host: chat.example.com")).named(path)
	if ticket.Origin != "https://chat.example.com" {
		t.Errorf("origin %s", ticket.Origin)
	}
	_, ticket = e.send(resolve("?user=a", "X-Forwarded-Proto: javascript", "X-Forwarded-Host: a/b")).named(path)
	if ticket.Origin != "http://edge.test:81" {
		t.Errorf("origin %s", ticket.Origin)
	}
}

// No member is named that is dead, avoided or draining; and the one that is named learns why it is.
func TestDispatchPassesOver(t *testing.T) {
	e, registry, path := dispatching(t, nil, discovery.Member{Addr: deadAddr(t), PublicURL: "ws://b0.test"},
		discovery.Member{Addr: listening(t), PublicURL: "ws://b1.test"})
	user := e.ownedBy("b0")
	for range 3 { // the first knocks, the others know
		says, ticket := e.send(resolve("?user=" + user)).named(path)
		if says.Backend != "b1" || ticket.PassedOver != "b0" {
			t.Errorf("named %s, passed over %q", says.Backend, ticket.PassedOver)
		}
	}
	if n := e.metric(`selvedge_edge_dial_failures_total{service="default"}`); n != "1" {
		t.Errorf("knocked %s times at a member that is avoided", n)
	}

	// It comes back elsewhere, and the other drains.
	registry.Put(DefaultService, discovery.Member{ID: "b0", Addr: listening(t), PublicURL: "ws://b0.test", Weight: 1})
	registry.Put(DefaultService, discovery.Member{ID: "b1", Addr: deadAddr(t), PublicURL: "ws://b1.test", Weight: 1, State: discovery.Draining})
	e.await(func(s *discovery.Snapshot) bool { return s.Ring.Len() == 1 })
	if says, ticket := e.send(resolve("?user=" + user)).named(path); says.Backend != "b0" || ticket.PassedOver != "" {
		t.Errorf("%+v, %+v", says, ticket)
	}
	dead := deadAddr(t)
	registry.Put(DefaultService, discovery.Member{ID: "b0", Addr: dead, PublicURL: "ws://b0.test", Weight: 1})
	e.await(func(s *discovery.Snapshot) bool { m, _ := s.Member("b0"); return m.Addr == dead })
	e.send(resolve("?user=" + user)).refused(503)
	registry.Put(DefaultService, discovery.Member{ID: "b0", Addr: listening(t), Weight: 1})
	e.await(func(s *discovery.Snapshot) bool { m, _ := s.Member("b0"); return m.PublicURL == "" })
	if says := e.send(resolve("?user=" + user)).refused(503); !strings.Contains(says, "public_url") {
		t.Error(says)
	}
	registry.Put(DefaultService, discovery.Member{ID: "b0", Addr: listening(t), Weight: 0})
	e.await(func(s *discovery.Snapshot) bool { return s.Ring.Len() == 0 })
	e.send(resolve("?user=" + user)).refused(503)
}

func TestDispatchNeedsASecret(t *testing.T) {
	e, _, _ := dispatching(t, func(c *Config) { c.Services = nil }, discovery.Member{Addr: listening(t), PublicURL: "ws://b0.test"})
	if says := e.send(resolve("?user=a")).refused(404); !strings.Contains(says, "edge_secret_file") {
		t.Error(says)
	}
}

func BenchmarkResolve(b *testing.B) {
	registry := discovery.NewMemory()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	registry.Put(DefaultService, discovery.Member{ID: "b0", Weight: 1, PublicURL: "ws://b0.test", Addr: ln.Addr().String()})
	e, err := New(Config{Membership: Membership{Memory: registry}, Services: map[string]ServiceConfig{DefaultService: {EdgeSecretFile: secretFile(b, "1")}}})
	if err != nil {
		b.Fatal(err)
	}
	go func() { _ = e.View(DefaultService).Run(b.Context()) }()
	<-e.View(DefaultService).Ready()
	r, _ := http.NewRequest(http.MethodGet, "http://edge.test/.well-known/selvedge/resolve?path=/ws&user=a", nil)
	r.RemoteAddr = "127.0.0.1:5"
	b.ReportAllocs()
	for b.Loop() {
		x := e.begin(r)
		if _, no := e.dispatched(r, x); no != nil {
			b.Fatal(no)
		}
	}
}

// The token goes no further than the edge; its end goes into the ticket.
func TestDispatchByToken(t *testing.T) {
	is := newIssuer(t, "k")
	e, _, path := dispatching(t, func(c *Config) {
		c.Routes, c.Auth = []Route{{Key: "jwt:sub"}}, Auth{JWKS: is.file(), Audience: "chat", Token: "query:access_token"}
	}, discovery.Member{Addr: listening(t), PublicURL: "ws://b0.test/at"})
	says, ticket := e.send(resolve("?path=/ws&access_token=" + is.token("alice", anHour) + "&device=d")).named(path)
	if ticket.User != "alice" || ticket.Target != "/ws?device=d" || !ticket.SessionEnd.Equal(anHour) || strings.Contains(says.URL, "access_token") {
		t.Errorf("%s: %+v", says.URL, ticket)
	}
	e.send(resolve("?path=/ws&device=d")).refused(401)
}

// Pages of origins that are listed can read the answer, others cannot ask; where none is listed, nobody's can read.
func TestDispatchOrigins(t *testing.T) {
	for _, listed := range []bool{false, true} {
		e, _, _ := dispatching(t, func(c *Config) {
			if listed {
				c.Admission.Origins = []string{"https://app.test"}
			}
		}, discovery.Member{Addr: listening(t), PublicURL: "ws://b0.test"})
		for _, c := range []struct {
			method, origin string
			status, open   int // without a list, and with one
			read           bool
		}{
			{"GET", "https://app.test", 200, 200, true},
			{"OPTIONS", "https://app.test", 405, 204, true},
			{"GET", "https://evil.test", 200, 403, false},
			{"OPTIONS", "https://evil.test", 405, 405, false},
		} {
			h := e.send(strings.Replace(resolve("?user=a", "Origin: "+c.origin), "GET", c.method, 1)).head()
			status, reads := c.status, ""
			if listed {
				if status = c.open; c.read {
					reads = c.origin
				}
			}
			if got := h.Header.Get("Access-Control-Allow-Origin"); h.StatusCode != status || got != reads || h.Header.Get("Vary") != "Origin" {
				t.Errorf("listed %v: %s of %s: %s, %v", listed, c.method, c.origin, h.Status, h.Header)
			}
		}
	}
}
