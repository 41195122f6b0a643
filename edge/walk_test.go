package edge

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/testkit"
)

// order returns the ids in the order in which they are asked for user, all being well.
func order(e *running, user string) []string {
	return slices.Collect(e.service(DefaultService).view.Snapshot().Ring.Successors(user))
}

// passedOver switches and says whom the edge has passed over, as it was told.
func passedOver(conn net.Conn, br *bufio.Reader, r *http.Request) {
	say(conn, "%spassed over %q\n", switched(r, ""), r.Header["X-Selvedge-Passed-Over"])
	_, _ = io.Copy(conn, br)
}

func TestWalksSuccessors(t *testing.T) {
	draining := "HTTP/1.1 503 Draining\nX-Selvedge-Refused: draining\nContent-Length: 8\n\ndraining"
	hangUp := func(net.Conn, *bufio.Reader, *http.Request) {}
	for name, c := range map[string]struct {
		first, second backendFunc // nil: refuses connections
		status        int
	}{
		"dead, dead":         {nil, nil, 101},
		"draining, dead":     {answering(draining), nil, 101},
		"hangs up, draining": {hangUp, answering(draining), 101},
		"resets, dead":       {func(conn net.Conn, _ *bufio.Reader, _ *http.Request) { _ = conn.(*net.TCPConn).SetLinger(0) }, nil, 101},
		"its own 503 counts": {answering("HTTP/1.1 503 Full\nRetry-After: 7\nContent-Length: 4\n\nfull"), nil, 503},
		"403 counts":         {nil, answering("HTTP/1.1 403 No\nContent-Length: 0\n\n"), 403},
		"200 counts":         {answering("HTTP/1.1 200 OK\nContent-Length: 0\n\n"), nil, 502},
	} {
		t.Run(name, func(t *testing.T) {
			registry := discovery.NewMemory()
			ids := []string{"b,0", "b,1", "b,2", "b,3"} // a comma in an id must not look like one in the list
			for _, id := range ids {
				registry.Put(DefaultService, discovery.Member{ID: id, Addr: "127.0.0.1:1", Weight: 1})
			}
			e := start(t, Config{Membership: Membership{Memory: registry}})
			order := order(e, "alice")
			for i, answer := range []backendFunc{c.first, c.second, passedOver} {
				addr := deadAddr(t)
				if answer != nil {
					addr = listenBackend(t, answer)
				}
				registry.Put(DefaultService, discovery.Member{ID: order[i], Addr: addr, Weight: 1})
			}
			e.await(func(snap *discovery.Snapshot) bool {
				return !slices.ContainsFunc(order[:3], func(id string) bool {
					m, _ := snap.Member(id)
					return m.Addr == "127.0.0.1:1"
				})
			})
			e.nothingLeft(func() {
				client := e.send(upgradeTo("/ws?user=alice", "X-Selvedge-Passed-Over: forged", "x_selvedge_passed-over: forged"))
				answer := client.head()
				if answer.StatusCode != c.status {
					t.Fatalf("answered %s, want %d", answer.Status, c.status)
				}
				want := fmt.Sprintf("passed over [%q]", percentEncode(order[0])+","+percentEncode(order[1]))
				if c.status == 101 && client.line() != want {
					t.Errorf("not the third, or it was not told %s", want)
				}
				_ = client.Close()
			})
		})
	}
}

// The owner itself is told of nobody, whatever the client says; nor is anyone where the user is not known.
func TestNobodyPassedOver(t *testing.T) {
	e := start(t, Config{Membership: members(listenBackend(t, passedOver), deadAddr(t)),
		Routes: []Route{{Path: "/ws"}, {Path: "/any", Key: "none"}}})
	user := e.ownedBy("b0")
	targets := []string{"/ws?user=" + user}
	for range 8 { // half of them meet the dead one first
		targets = append(targets, "/any")
	}
	for _, target := range targets {
		c := e.send(upgradeTo(target, "X-Selvedge-Passed-Over: b1"))
		c.head()
		if got := c.line(); got != "passed over []" {
			t.Errorf("%s: %s", target, got)
		}
		_ = c.Close()
	}
}

// A member that joins or drains gets no new session, whether the edge knows it from the registry or only from its answer; where all of them
// do, the answer is the edge's own.
func TestJoiningAndDraining(t *testing.T) {
	registry := discovery.NewMemory()
	put := func(id string, state discovery.State, answer backendFunc) {
		registry.Put(DefaultService, discovery.Member{ID: id, Addr: listenBackend(t, answer), Weight: 1, State: state})
	}
	put("joining", discovery.Joining, echo("joining"))
	put("draining", discovery.Draining, echo("draining"))
	put("serving", discovery.Serving, echo("serving"))
	e := start(t, Config{Membership: Membership{Memory: registry}})
	e.await(func(snap *discovery.Snapshot) bool { return len(snap.Members) == 3 })
	for i := range 20 {
		c := e.send(upgradeTo(fmt.Sprintf("/ws?user=u%d", i)))
		c.head()
		if got, want := c.line(), fmt.Sprintf("serving/u%d", i); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		_ = c.Close()
	}
	put("serving", discovery.Serving, answering("HTTP/1.1 503 No\nX-Selvedge-Refused: joining\nContent-Length: 0\n\n"))
	testkit.Eventually(t, patience, func() bool {
		c := e.send(upgradeTo("/ws?user=alice"))
		defer c.Close()
		return c.head().StatusCode == http.StatusServiceUnavailable
	}, "the new address is known, and refuses")
	e.send(upgradeTo("/ws?user=alice")).refused(503)
	if got := e.metric(`selvedge_edge_ejections_total{service="default"}`); got != "0" {
		t.Errorf("%s ejections of a member that answers", got)
	}
}

// Sessions survive every change of membership: it says where new ones go.
func TestSessionsSurviveChanges(t *testing.T) {
	registry := discovery.NewMemory()
	m := discovery.Member{ID: "b0", Incarnation: 1, Addr: listenBackend(t, echo("b0")), Weight: 1}
	registry.Put(DefaultService, m)
	e := start(t, Config{Membership: Membership{Memory: registry}})
	e.await(func(snap *discovery.Snapshot) bool { return snap.Ring.Len() == 1 })
	c := e.send(upgradeTo("/ws?user=alice"))
	c.head()
	c.line()
	for _, step := range []struct {
		what   string
		change func()
	}{
		{"others come", func() { registry.Put(DefaultService, discovery.Member{ID: "b1", Addr: deadAddr(t), Weight: 50}) }},
		{"weight", func() { m.Weight = 9; registry.Put(DefaultService, m) }},
		{"weight 0", func() { m.Weight = 0; registry.Put(DefaultService, m) }},
		{"critical", func() { m.Weight, m.Health = 1, discovery.Critical; registry.Put(DefaultService, m) }},
		{"draining", func() { m.State = discovery.Draining; registry.Put(DefaultService, m) }},
		{"another process", func() { m.Incarnation, m.Addr = 2, deadAddr(t); registry.Put(DefaultService, m) }},
		{"all deregistered", func() { registry.Delete(DefaultService, "b0"); registry.Delete(DefaultService, "b1") }},
	} {
		before := e.snapshot()
		step.change()
		e.await(func(snap *discovery.Snapshot) bool { return snap != before })
		say(c, "%s\n", step.what)
		if got := c.line(); got != step.what {
			t.Errorf("after %q: got %q", step.what, got)
		}
	}
}

func TestRetriesBoundTheWalk(t *testing.T) {
	asked := new(atomic.Int32)
	hangUp := func(net.Conn, *bufio.Reader, *http.Request) { asked.Add(1) }
	var addrs []string
	for range 5 {
		addrs = append(addrs, listenBackend(t, hangUp))
	}
	for retries, want := range map[int]int32{-1: 1, 0: 3, 1: 2, 9: 5} {
		asked.Store(0)
		e := start(t, Config{Membership: members(addrs...), Services: map[string]ServiceConfig{DefaultService: {Retries: retries}}})
		e.send(upgradeTo("/ws?user=alice")).refused(503)
		if asked.Load() != want {
			t.Errorf("Retries %d: %d members asked, want %d", retries, asked.Load(), want)
		}
	}
}

func TestNoBackend(t *testing.T) {
	e := start(t, Config{Membership: members()})
	e.nothingLeft(func() {
		for _, text := range []string{upgradeTo("/ws?user=a"), "GET /?user=a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"} {
			c := e.send(text)
			if says := c.refused(503); !strings.Contains(says, "no backend") {
				t.Errorf("said %q", says)
			}
			_ = c.Close()
		}
	})
	dead := start(t, Config{Membership: members(deadAddr(t), deadAddr(t))})
	dead.send(upgradeTo("/ws?user=a")).refused(503)
	dead.send("GET /?user=a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").refused(503)
	if got := dead.metric(`selvedge_edge_dial_failures_total{service="default"}`); got != "4" {
		t.Errorf("dial failures: %s, want 4", got)
	}
}

// All of a user's requests reach one member, and users spread; without a user, requests spread too.
func TestOwner(t *testing.T) {
	e := start(t, Config{
		Membership: members(listenBackend(t, echo("b0")), listenBackend(t, echo("b1")), listenBackend(t, echo("b2"))),
		Routes:     []Route{{Path: "/ws"}, {Path: "/any", Key: "none"}},
	})
	seen, spread := map[string]bool{}, map[string]bool{}
	for i := range 30 {
		user := fmt.Sprint("u", i)
		want := order(e, user)[0] + "/" + user
		for range 2 {
			c := e.send(upgradeTo("/ws?user=" + user))
			c.head()
			if got := c.line(); got != want {
				t.Errorf("%s: %s, want %s", user, got, want)
			}
			_ = c.Close()
		}
		seen[want[:2]] = true
		c := e.send(upgradeTo("/any"))
		c.head()
		spread[c.line()] = true
		_ = c.Close()
	}
	if len(seen) != 3 || len(spread) != 3 {
		t.Errorf("users on %v, requests without a user on %v; want all three members", seen, spread)
	}
}

// The Ribbon bug: two services behind one edge, same ids, never mix.
func TestTwoServicesNeverMix(t *testing.T) {
	registry := discovery.NewMemory()
	for _, service := range []string{"chat", "game"} {
		for i := range 3 {
			id := fmt.Sprint("b", i)
			registry.Put(service, discovery.Member{ID: id, Addr: listenBackend(t, echo(service)), Weight: 1})
		}
	}
	e := start(t, Config{Membership: Membership{Memory: registry},
		Routes: []Route{{Path: "/chat", Service: "chat"}, {Path: "/game", Service: "game"}}})
	for i := range 60 {
		service := []string{"chat", "game"}[i%2]
		c := e.send(upgradeTo(fmt.Sprintf("/%s?user=u%d", service, i/2)))
		c.head()
		if got, want := c.line(), fmt.Sprintf("%s/u%d", service, i/2); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		_ = c.Close()
	}
}
