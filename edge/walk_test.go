package edge

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/testkit"
)

// owners puts the members of addrs on a ring, and returns them in the order in which they are asked for user.
func owners(t *testing.T, e *running, user string) []string {
	var ids []string
	for _, m := range e.services[DefaultService].candidates(user) {
		ids = append(ids, m.ID)
	}
	return ids
}

func TestWalksSuccessors(t *testing.T) {
	busy := "HTTP/1.1 503 Full\nContent-Length: 4\n\nfull"
	for name, c := range map[string]struct {
		first, second backendFunc // nil: refuses connections
		status        int
	}{
		"dead, dead":     {nil, nil, 101},
		"busy, dead":     {answering(busy), nil, 101},
		"hangs up, busy": {func(net.Conn, *bufio.Reader, *http.Request) {}, answering(busy), 101},
		"resets, dead":   {func(conn net.Conn, _ *bufio.Reader, _ *http.Request) { _ = conn.(*net.TCPConn).SetLinger(0) }, nil, 101},
		"403 counts":     {nil, answering("HTTP/1.1 403 No\nContent-Length: 0\n\n"), 403},
		"200 counts":     {answering("HTTP/1.1 200 OK\nContent-Length: 0\n\n"), nil, 502},
	} {
		t.Run(name, func(t *testing.T) {
			registry := discovery.NewMemory()
			ids := []string{"b0", "b1", "b2", "b3"}
			for _, id := range ids {
				registry.Put(DefaultService, discovery.Member{ID: id, Addr: "127.0.0.1:1", Weight: 1})
			}
			e := start(t, Config{Membership: Membership{Memory: registry}})
			order := owners(t, e, "alice")
			if len(order) != 3 {
				t.Fatalf("candidates %q, want 3", order)
			}
			for i, answer := range []backendFunc{c.first, c.second, echo("third")} {
				addr := deadAddr(t)
				if answer != nil {
					addr = listenBackend(t, answer)
				}
				registry.Put(DefaultService, discovery.Member{ID: order[i], Addr: addr, Weight: 1})
			}
			testkit.Eventually(t, patience, func() bool {
				list := e.services[DefaultService].candidates("alice")
				return list[0].Addr != "127.0.0.1:1" && list[1].Addr != "127.0.0.1:1" && list[2].Addr != "127.0.0.1:1"
			}, "the addresses are known")
			e.nothingLeft(func() {
				client := e.send(upgradeTo("/ws?user=alice"))
				answer := client.head()
				if answer.StatusCode != c.status {
					t.Fatalf("answered %s, want %d", answer.Status, c.status)
				}
				if c.status == 101 && client.line() != "third/alice" {
					t.Error("not the third")
				}
				_ = client.Close()
			})
		})
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
		want := owners(t, e, user)[0] + "/" + user
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
