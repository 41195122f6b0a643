package edge

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/selvedge/selvedge/internal/discovery"
)

// lines is a backend that switches, greets, and answers each line with its length and its end, so that what is lost or out of order shows.
func lines(conn net.Conn, br *bufio.Reader, r *http.Request) {
	say(conn, "%sgreeting\n", switched(r, ""))
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		say(conn, "%d %s\n", len(line), line[max(0, len(line)-4):])
	}
}

// What nginx's own tests hold of upgraded connections (proxy_upgrade.t, proxy_websocket.t).
func TestUpgradedAsNginxHasIt(t *testing.T) {
	e := start(t, Config{Membership: members(listenBackend(t, lines))})
	want := func(t *testing.T, c *client, texts ...string) {
		t.Helper()
		for _, text := range texts {
			if got := c.line(); got != text {
				t.Fatalf("got %q, want %q", got, text)
			}
		}
	}
	t.Run("large and small messages in turn, unread in between", func(t *testing.T) {
		c := e.send(upgradeTo("/?user=a"))
		if got := c.head(); got.StatusCode != http.StatusSwitchingProtocols {
			t.Fatal(got.Status)
		}
		want(t, c, "greeting")
		for i := range 10 {
			if _, err := fmt.Fprintf(c, "%s%d\nshort%d\n", strings.Repeat("foo", 16384), i, i); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 10 {
			want(t, c, fmt.Sprintf("49153 foo%d", i), fmt.Sprintf("6 ort%d", i))
		}
	})
	t.Run("what follows the handshake in one packet, and what comes after", func(t *testing.T) {
		c := e.send(upgradeTo("/?user=a") + "early\n")
		c.head()
		want(t, c, "greeting", "5 arly")
		if _, err := io.WriteString(c, "next\n"); err != nil {
			t.Fatal(err)
		}
		want(t, c, "4 next")
	})
	t.Run("no upgrade without both fields, whatever the backend says", func(t *testing.T) {
		for _, drop := range []string{"Upgrade: websocket\r\n", "Connection: Upgrade\r\n"} {
			e.send(strings.Replace(upgradeTo("/?user=a"), drop, "", 1)).refused(http.StatusBadGateway)
		}
	})
	t.Run("either side's end reaches the other", func(t *testing.T) {
		c := e.send(upgradeTo("/?user=a"))
		c.head()
		want(t, c, "greeting")
		if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		c.ended() // the backend ends when it has read to the end
	})
}

// What HAProxy's tests hold of a WebSocket handshake (http-messaging/websocket.vtc).
func TestHandshakeAsHAProxyHasIt(t *testing.T) {
	const accept = "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\n"
	for _, test := range []struct {
		name, drop, answer string
		status             int
	}{
		{"lower case, and no version", "Sec-WebSocket-Version: 13\r\n", "connection: upgrade\nupgrade: websocket\n" + accept, 101},
		{"no key", "Sec-WebSocket-Key: " + sampleKey + "\r\n", "connection: upgrade\nupgrade: websocket\n" + accept, 400},
		{"no proof from the backend", "", "connection: upgrade\nupgrade: websocket\n", 502},
		{"a wrong proof", "", "connection: upgrade\nupgrade: websocket\nsec-websocket-accept: invalid_key\n", 502},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := start(t, Config{Membership: members(listenBackend(t, func(conn net.Conn, br *bufio.Reader, _ *http.Request) {
				say(conn, "%s", strings.ReplaceAll("HTTP/1.1 101 Switching Protocols\n"+test.answer+"\n", "\n", "\r\n"))
				_, _ = io.Copy(conn, br)
			}))})
			c := e.send(strings.Replace(upgradeTo("/?user=a"), test.drop, "", 1))
			if test.status != http.StatusSwitchingProtocols {
				c.refused(test.status)
				return
			}
			if got := c.head(); got.StatusCode != test.status {
				t.Fatalf("answered %s, want %d", got.Status, test.status)
			}
			if _, err := io.WriteString(c, "PING\n"); err != nil || c.line() != "PING" {
				t.Errorf("no echo: %v", err)
			}
		})
	}
}

// What both hold of hash balancing (upstream_hash.t; balance/balance-uri.vtc): the same key meets the same server, many keys meet all, weights
// count, a server that is down or taken out moves its own keys alone, and they come home.
func TestHashAsBothHaveIt(t *testing.T) {
	registry := discovery.NewMemory()
	put := func(id, addr string, weight int) {
		registry.Put(DefaultService, discovery.Member{ID: id, Addr: addr, Weight: weight})
	}
	addrs := make(map[string]string)
	for _, id := range []string{"b0", "b1", "b2"} {
		addrs[id] = listenBackend(t, answering("HTTP/1.1 200 OK\nX-Backend: "+id+"\nContent-Length: 0\nConnection: close\n\n"))
		put(id, addrs[id], 1)
	}
	e := start(t, Config{Membership: Membership{Memory: registry}})
	ring := func(n int) { t.Helper(); e.await(func(s *discovery.Snapshot) bool { return s.Ring.Len() == n }) }
	ring(3)
	const users = 150
	find := func() (at [users]string, count map[string]int) {
		t.Helper()
		count = make(map[string]int)
		for i := range users {
			got := e.send(fmt.Sprintf("GET /p%d?x=%d&user=u%d HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n\r\n", i%7, i%3, i)).head()
			at[i] = got.Header.Get("X-Backend")
			count[at[i]]++
		}
		return at, count
	}
	home, count := find()
	for id := range addrs {
		if count[id] < users/6 {
			t.Errorf("%s has %d of %d users", id, count[id], users)
		}
	}
	if again, _ := find(); again != home {
		t.Error("the same users are elsewhere the second time")
	}
	alone := func(when string, at [users]string) {
		t.Helper()
		for i := range at {
			if (at[i] != home[i]) != (home[i] == "b1") || at[i] == "b1" {
				t.Errorf("%s user %d is at %q; was at %s", when, i, at[i], home[i])
			}
		}
	}
	put("b1", deadAddr(t), 1)
	e.await(func(s *discovery.Snapshot) bool { m, _ := s.Member("b1"); return m.Addr != addrs["b1"] })
	down, _ := find()
	alone("with b1 down", down)
	registry.Delete(DefaultService, "b1")
	ring(2)
	out, _ := find()
	alone("without b1", out)
	if out != down {
		t.Error("who leaves the ring and who is down are passed over differently")
	}
	put("b1", addrs["b1"], 1)
	ring(3)
	if back, _ := find(); back != home {
		t.Error("with b1 back not all users are home")
	}
	put("b1", addrs["b1"], 4)
	e.await(func(s *discovery.Snapshot) bool { m, _ := s.Member("b1"); return m.Weight == 4 })
	if _, count := find(); count["b1"] < users/2 || count["b0"] == 0 || count["b2"] == 0 {
		t.Errorf("b1 has four times the weight: %v", count)
	}
}
