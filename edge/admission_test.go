package edge

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/selvedge/selvedge/internal/testkit"
)

var loopbackNet = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// behind is a field by which a trusted proxy says who the client is.
func behind(addr string) string { return "X-Forwarded-For: " + addr }

func TestLimits(t *testing.T) {
	e := start(t, Config{
		Membership: members(listenBackend(t, echo("b0"))), TrustedProxies: loopbackNet,
		Routes:    []Route{{}, {Path: "/other", Service: "other"}},
		Admission: Admission{PerUser: 2, PerAddress: 3},
	})
	e.nothingLeft(func() {
		opens := func(target, addr string) *client {
			t.Helper()
			c := e.send(upgradeTo(target, behind(addr)))
			if got := c.head(); got.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("%s from %s: %s", target, addr, got.Status)
			}
			return c
		}
		a1, a2 := opens("/ws?user=alice", "192.0.2.1"), opens("/ws?user=alice", "192.0.2.2")
		e.send(upgradeTo("/ws?user=alice", behind("192.0.2.3"))).refused(http.StatusTooManyRequests)
		opens("/ws?user=b1", "2001:db8::1")
		opens("/ws?user=b2", "2001:db8::2")
		opens("/ws?user=b3", "2001:db8:0:0:ffff::")
		e.send(upgradeTo("/ws?user=b4", behind("2001:db8::9"))).refused(http.StatusTooManyRequests)
		opens("/ws?user=b4", "2001:db8:0:1::9") // the next network
		for reason, want := range map[string]string{"per_user": "1", "per_ip": "1", "full": "0", "upgrades_per_second": "0"} {
			if n := e.metric(fmt.Sprintf(`selvedge_edge_refusals_total{reason=%q}`, reason)); n != want {
				t.Errorf("%s: %s refused, want %s", reason, n, want)
			}
		}
		// Fewer are allowed by a reload: those who are here stay, and count.
		cfg := e.cfg
		cfg.Admission.PerUser = 1
		if err := e.Reload(cfg); err != nil {
			t.Fatal(err)
		}
		_ = a1.Close()
		testkit.Eventually(t, patience, func() bool { return e.Sessions() == 5 }, "one has ended")
		e.send(upgradeTo("/ws?user=alice", behind("192.0.2.3"))).refused(http.StatusTooManyRequests)
		_ = a2.Close()
		testkit.Eventually(t, patience, func() bool { return e.Sessions() == 4 }, "both have ended")
		opens("/ws?user=alice", "192.0.2.3")
		e.hangUp()
	})
}

// However sessions begin and end, and however many at once, never are there more than the limits allow, and in the end nothing is counted.
func TestCountsAreExact(t *testing.T) {
	const perUser, perAddress = 3, 5
	var mu sync.Mutex
	open, most := map[string]int{}, map[string]int{}
	addr := listenBackend(t, func(conn net.Conn, br *bufio.Reader, r *http.Request) {
		end := r.URL.Query().Get("end")
		count := func(by int) {
			if end == "reset" || end == "early" {
				return // the edge hears of it first
			}
			mu.Lock()
			defer mu.Unlock()
			for _, who := range []string{"user " + r.Header.Get("X-Selvedge-User"), "from " + r.Header.Get("X-From")} {
				open[who] += by
				most[who] = max(most[who], open[who])
			}
		}
		count(1)
		if end == "server" || end == "client" || end == "reset" || end == "early" {
			say(conn, "%s", switched(r, ""))
			if _, err := br.ReadByte(); err == nil && end != "server" {
				_, _ = io.Copy(io.Discard, br)
			}
		}
		count(-1) // before the edge can know of the end
		say(conn, "%s", map[string]string{
			"refused":    "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
			"nonsense":   "SSH-2.0\r\n\r\n",
			"bad accept": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
		}[end])
	})
	e := start(t, Config{
		Membership: members(addr), TrustedProxies: loopbackNet, Routes: []Route{{}, {Path: "/lost", Service: "lost"}},
		Admission: Admission{PerUser: perUser, PerAddress: perAddress},
	})
	ends := []string{"refused", "nonsense", "bad accept", "dies", "server", "client", "reset", "early", "half head", "no user", "no member"}
	e.nothingLeft(func() {
		rapid.Check(t, func(t *rapid.T) {
			var wg, answered sync.WaitGroup // all who come in are there at once
			drawn := rapid.SliceOfN(rapid.IntRange(0, 1<<16), 1, 25).Draw(t, "clients")
			answered.Add(len(drawn)) // before the first of them waits
			for _, n := range drawn {
				end, user, from := ends[n%len(ends)], (n>>4)%3, (n>>8)%3
				target := fmt.Sprintf("/ws?user=u%d&end=%s", user, strings.ReplaceAll(end, " ", "+"))
				switch end {
				case "no user":
					target = "/ws"
				case "no member":
					target = "/lost?user=x"
				}
				request := upgradeTo(target, behind(fmt.Sprintf("192.0.2.%d", from)), fmt.Sprintf("X-From: %d", from))
				wg.Go(func() {
					done := sync.OnceFunc(answered.Done)
					defer done()
					conn, err := net.Dial("tcp", e.Addr().String())
					if err != nil {
						return
					}
					defer conn.Close()
					_ = conn.SetDeadline(time.Now().Add(patience))
					if end == "half head" {
						request = request[:len(request)/2]
					}
					_, _ = io.WriteString(conn, request)
					if end == "early" || end == "half head" {
						return
					}
					answer, err := http.ReadResponse(bufio.NewReader(conn), nil) //nolint:bodyclose // the connection ends
					if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
						return
					}
					done()
					answered.Wait()
					if end == "reset" {
						_ = conn.(*net.TCPConn).SetLinger(0)
					}
					_, _ = conn.Write([]byte("x"))
				})
			}
			wg.Wait()
		})
		for i := range perUser + 1 { // the limit is reached, whatever was drawn
			c := e.send(upgradeTo("/ws?user=u9&end=client", behind("192.0.2.9"), "X-From: 9"))
			if got := c.head().StatusCode; (got == http.StatusSwitchingProtocols) != (i < perUser) {
				t.Errorf("session %d of a user: %d", i+1, got)
			}
		}
		e.hangUp()
	})
	mu.Lock()
	defer mu.Unlock()
	reached := 0
	for who, n := range most {
		limit := perUser
		if strings.HasPrefix(who, "from ") {
			limit = perAddress
		}
		if n > limit {
			t.Errorf("%s: %d at once, of %d", who, n, limit)
		} else if n == limit {
			reached++
		}
	}
	if reached == 0 {
		t.Error("no limit was reached; the test shows nothing")
	}
	if n := e.counted("selvedge_edge_refusals_total"); n == 0 {
		t.Error("nobody was refused")
	}
}

func TestUpgradesPerSecond(t *testing.T) {
	e := start(t, Config{Membership: members(listenBackend(t, echo("b0"))), Admission: Admission{UpgradesPerSecond: 0.001}})
	e.nothingLeft(func() {
		e.send(upgradeTo("/ws")).refused(http.StatusBadRequest) // who is refused for another reason does not count
		if got := e.send(upgradeTo("/ws?user=a")).head(); got.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("the first: %s", got.Status)
		}
		e.send(upgradeTo("/ws?user=a")).refused(http.StatusServiceUnavailable)
		cfg := e.cfg
		cfg.Admission.UpgradesPerSecond = 0
		if err := e.Reload(cfg); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if got := e.send(upgradeTo("/ws?user=a")).head(); got.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("without a limit: %s", got.Status)
			}
		}
		e.hangUp()
	})
	if n := e.metric(`selvedge_edge_refusals_total{reason="upgrades_per_second"}`); n != "1" {
		t.Errorf("%s refused, want 1", n)
	}
}

func TestNetworks(t *testing.T) {
	prefixes := func(list ...string) (out []netip.Prefix) {
		for _, p := range list {
			out = append(out, netip.MustParsePrefix(p))
		}
		return out
	}
	e := start(t, Config{
		Membership: members(listenBackend(t, func(conn net.Conn, br *bufio.Reader, r *http.Request) {
			if wantsWebSocket(r) {
				echo("b0")(conn, br, r)
			} else {
				say(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			}
		})), TrustedProxies: loopbackNet,
		Admission: Admission{Allow: prefixes("192.0.2.0/24", "2001:db8::/32"), Deny: prefixes("192.0.2.7/32")},
	})
	for addr, in := range map[string]bool{"192.0.2.1": true, "192.0.2.7": false, "198.51.100.1": false, "2001:db8::1": true, "2001:db9::1": false,
		"::ffff:192.0.2.7": false, "::ffff:192.0.2.8": true} {
		upgrade := e.send(upgradeTo("/ws?user=a", behind(addr)))
		plain := e.send("GET /?user=a HTTP/1.1\r\nHost: a\r\n" + behind(addr) + "\r\n\r\n")
		if !in {
			upgrade.refused(http.StatusForbidden)
			plain.refused(http.StatusForbidden)
			continue
		}
		if a, b := upgrade.head().StatusCode, plain.head().StatusCode; a != http.StatusSwitchingProtocols || b != http.StatusOK {
			t.Errorf("%s: %d, %d", addr, a, b)
		}
	}
}

func TestOrigins(t *testing.T) {
	g, err := newGate(Admission{Origins: []string{"https://app.example.com", "https://*.chat.test", "http://localhost:3000", "https://[2001:db8::1]"}})
	if err != nil {
		t.Fatal(err)
	}
	for fields, want := range map[string]bool{
		"": true, "https://app.example.com": true, "HTTPS://APP.example.com:443": true, "http://app.example.com": false,
		"https://app.example.com:8443": false, "https://xapp.example.com": false, "https://app.example.com.evil.test": false,
		"https://a.chat.test": true, "https://a.b.chat.test": true, "https://chat.test": false, "https://.chat.test": false,
		"https://evilchat.test": false, "https://*.chat.test": false, "http://localhost:3000": true, "http://localhost": false, "null": false,
		"https://[2001:db8::1]": true, "https://app.example.com|https://app.example.com": false, "https://evil.test https://app.example.com": false,
		"https://app.example.com/": false, "https://app.example.com@evil.test": false, "https://evil.test#https://app.example.com": false,
	} {
		var list []string
		if fields != "" {
			list = strings.Split(fields, "|")
		}
		if got := g.allowsOrigin(list); got != want {
			t.Errorf("%q: %v", fields, got)
		}
	}
	e := start(t, Config{Membership: members(listenBackend(t, echo("b0"))), Admission: Admission{Origins: []string{"https://app.example.com"}}})
	e.send(upgradeTo("/ws?user=a", "Origin: https://evil.test")).refused(http.StatusForbidden)
	if got := e.send(upgradeTo("/ws?user=a", "Origin: https://app.example.com")).head(); got.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("an origin that is allowed: %s", got.Status)
	}
}

func TestIdleTimeout(t *testing.T) {
	e := start(t, Config{Membership: members(listenBackend(t, echo("b0"))), IdleTimeout: 100 * time.Millisecond})
	e.nothingLeft(func() {
		c := e.send(upgradeTo("/ws?user=a"))
		if c.head().StatusCode != http.StatusSwitchingProtocols || c.line() != "b0/a" {
			t.Fatal("no session")
		}
		c.ended()
		_ = c.Close()
	})
}
