package edge

import (
	"bufio"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// both asks for /x?user=alice as an upgrade and as plain HTTP with the same fields, and returns what the backend saw each time.
func both(t *testing.T, cfg Config, target string, fields ...string) map[string]http.Header {
	heads := make(chan http.Header, 2)
	cfg.Membership = members(listenBackend(t, func(conn net.Conn, _ *bufio.Reader, r *http.Request) {
		heads <- r.Header
		if wantsWebSocket(r) {
			say(conn, "%s", switched(r, ""))
		} else {
			say(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		}
	}))
	e := start(t, cfg)
	seen := map[string]http.Header{}
	if answer := e.send(upgradeTo(target, fields...)).head(); answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %s", answer.Status)
	}
	seen["upgrade"] = <-heads
	plain := "GET " + target + " HTTP/1.1\r\nHost: edge.test\r\n" + strings.Join(append(fields, ""), "\r\n") + "\r\n"
	if answer := e.send(plain).head(); answer.StatusCode != http.StatusOK {
		t.Fatalf("plain: %s", answer.Status)
	}
	seen["plain"] = <-heads
	return seen
}

func TestWhatTheBackendSees(t *testing.T) {
	for name, h := range both(t, Config{Name: "e1"}, "/x?user=j%C3%B6rg+a%2Fb-._~", "X-Mine: 1", "Cookie: a=b", "Accept-Encoding: br") {
		for field, want := range map[string]string{
			"X-Selvedge-User": "j%C3%B6rg%20a%2Fb-._~", "X-Selvedge-Edge": "e1", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http",
			"X-Forwarded-Host": "edge.test", "Forwarded": `for=127.0.0.1;host="edge.test";proto=http`, "X-Mine": "1", "Cookie": "a=b",
			"Accept-Encoding": "br",
		} {
			if got := h[field]; len(got) != 1 || got[0] != want {
				t.Errorf("%s: %s is %q, want %q", name, field, got, want)
			}
		}
		if id := h.Get("X-Request-Id"); len(id) != 32 {
			t.Errorf("%s: X-Request-Id %q", name, id)
		}
		if name == "plain" && h["User-Agent"] != nil {
			t.Errorf("the edge made up a User-Agent: %q", h["User-Agent"])
		}
	}
}

func TestSpoofedFields(t *testing.T) {
	fields := []string{"X-Selvedge-User: mallory", "X_Selvedge_User: mallory", "x-selvedge_user: mallory", "X-SELVEDGE-EDGE: mallory",
		"X.Selvedge.User: mallory", "X-Selvedge-Signature: mallory", "X-Selvedge-Expires: mallory", "X_Request_Id: mallory", "X-Request-Id: mallory",
		"X-Forwarded-For: mallory", "X-Forwarded-Proto: mallory", "X-Forwarded-Host: mallory", "X-Forwarded-Port: mallory",
		"X_Forwarded_For: mallory", "Forwarded: for=mallory", "Keep-Alive: mallory", "Proxy-Authorization: mallory", "X-Hop: mallory",
		"Connection: X-Hop, X-Selvedge-User, X-Forwarded-For, X-Request-Id"}
	for name, h := range both(t, Config{}, "/x?user=alice", fields...) {
		for field, values := range h {
			if strings.Contains(strings.Join(values, " "), "mallory") {
				t.Errorf("%s: %s: %q got through", name, field, values)
			}
		}
		if h.Get("X-Selvedge-User") != "alice" || h.Get("X-Forwarded-For") != "127.0.0.1" || h.Get("X-Request-Id") == "" {
			t.Errorf("%s: the edge's own are %v", name, h)
		}
	}
	// Without a user there is no X-Selvedge-User at all.
	for name, h := range both(t, Config{Routes: []Route{{Key: "none"}}}, "/x", fields...) {
		if got, there := h["X-Selvedge-User"]; there {
			t.Errorf("%s: X-Selvedge-User is %q", name, got)
		}
	}
}

func TestTrustedProxy(t *testing.T) {
	fields := []string{"X-Forwarded-For: 198.51.100.7, 192.0.2.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: a.test", "X-Forwarded-Port: 443",
		"Forwarded: for=192.0.2.1", "X-Request-Id: abc-123", "X_Forwarded_For: mallory", "X-Selvedge-User: mallory"}
	cfg := Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Routes: []Route{{Key: "ip"}}}
	for name, h := range both(t, cfg, "/x", fields...) {
		for field, want := range map[string]string{
			"X-Selvedge-User": "192.0.2.1", "X-Forwarded-For": "198.51.100.7, 192.0.2.1, 127.0.0.1", "X-Forwarded-Proto": "https",
			"X-Forwarded-Host": "a.test", "X-Forwarded-Port": "443", "Forwarded": `for=192.0.2.1, for=127.0.0.1;host="edge.test";proto=http`,
			"X-Request-Id": "abc-123", "X_forwarded_for": "",
		} {
			if got := strings.Join(h[field], "|"); got != want {
				t.Errorf("%s: %s is %q, want %q", name, field, got, want)
			}
		}
	}
}

func TestClientBehindProxies(t *testing.T) {
	l := &live{proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}}
	for _, c := range []struct {
		forwardedFor []string
		want         string
	}{
		{nil, "10.0.0.1"},
		{[]string{"192.0.2.1"}, "192.0.2.1"},
		{[]string{"198.51.100.1, 192.0.2.1"}, "192.0.2.1"},
		{[]string{"192.0.2.1, 10.0.0.2,fd00::1"}, "192.0.2.1"},
		{[]string{"192.0.2.1", "10.0.0.2"}, "192.0.2.1"},
		{[]string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{[]string{"192.0.2.1, nonsense, 10.0.0.2"}, "10.0.0.2"},
		{[]string{"192.0.2.1:4711"}, "192.0.2.1"},
		{[]string{"[2001:db8::1]:4711"}, "2001:db8::1"},
		{[]string{"[2001:db8::1]"}, "2001:db8::1"},
		{[]string{"::ffff:192.0.2.1"}, "192.0.2.1"},
		{[]string{""}, "10.0.0.1"},
	} {
		if got := l.client(netip.MustParseAddr("10.0.0.1"), c.forwardedFor); got.String() != c.want {
			t.Errorf("%q: %v, want %s", c.forwardedFor, got, c.want)
		}
	}
}

func TestRequestID(t *testing.T) {
	for id, kept := range map[string]bool{"abc-1": true, strings.Repeat("x", 128): true, strings.Repeat("x", 129): false, "": false, "a b": false,
		`a"b`: false, "a\x7f": false, "ü": false} {
		h := http.Header{"X-Request-Id": {id}}
		if got := requestID(h, true); (got == id) != kept || got == "" {
			t.Errorf("%q of a trusted proxy became %q", id, got)
		}
		if got := requestID(h, false); got == id {
			t.Errorf("%q of a stranger kept", id)
		}
	}
}

func TestEscapeUserIsReversible(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		user := rapid.String().Draw(t, "user")
		escaped := percentEncode(user)
		if back, err := url.PathUnescape(escaped); err != nil || back != user || !validFieldValue(escaped) {
			t.Fatalf("%q became %q, and back %q, %v", user, escaped, back, err)
		}
	})
}

// TestBackendHeaderLeavesTheRequest has fields share their values with a request, which is not changed by it, nor behind its values' ends.
func TestBackendHeaderLeavesTheRequest(t *testing.T) {
	e := start(t, Config{Membership: members(deadAddr(t)), TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(upgradeTo("/ws?user=a", "X-Forwarded-For: 1.2.3.4", "Forwarded: for=x", "X-Selvedge-User: eve"))))
	if err != nil {
		t.Fatal(err)
	}
	r.RemoteAddr = "127.0.0.1:5"
	roomy := append(make([]string, 0, 4), r.Header["X-Forwarded-For"]...)
	r.Header["X-Forwarded-For"] = roomy
	before := r.Header.Clone()
	x := e.begin(r)
	if no := x.resolve(r); no != nil {
		t.Fatal(no)
	}
	h := e.backendHeader(r, x)
	if got := h["X-Forwarded-For"]; !slices.Equal(got, []string{"1.2.3.4, 127.0.0.1"}) || h.Get("X-Selvedge-User") != "a" {
		t.Errorf("%v", h)
	}
	if !maps.EqualFunc(r.Header, before, slices.Equal[[]string]) || roomy[:2][1] != "" {
		t.Errorf("%v, behind it %q, was %v", r.Header, roomy[:2], before)
	}
}
