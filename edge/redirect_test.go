package edge

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

func TestRedirectHTTPS(t *testing.T) {
	a := newAuthority(t)
	e := start(t, Config{
		Listen:     []Listener{{Addr: "127.0.0.1:0", RedirectHTTPS: true}, secureListener(a.leaf("edge.test"))},
		Routes:     []Route{{Host: "edge.test", Path: "/ws"}},
		Membership: members(listenBackend(t, echo("b0"))),
	})
	for request, want := range map[string]string{
		"GET /ws/a%2Fb?user=x&y=%20 HTTP/1.1\r\nHost: edge.test\r\n\r\n":         "https://edge.test/ws/a%2Fb?user=x&y=%20",
		"POST /ws HTTP/1.1\r\nHost: edge.test:1\r\nContent-Length: 3\r\n\r\nabc": "https://edge.test/ws", // and no user
		"GET http://edge.test/ws?user=x HTTP/1.1\r\nHost: ignored\r\n\r\n":       "https://edge.test/ws?user=x",
		upgradeTo("/ws?user=x"): "https://edge.test/ws?user=x",
		// A client that knows our port finds our port for TLS.
		"GET /ws HTTP/1.1\r\nHost: edge.test:" + portOf(e.Addr()) + "\r\n\r\n": "https://edge.test:" + portOf(e.addrs[1]) + "/ws",
	} {
		c := e.send(request)
		if answer := c.head(); answer.StatusCode != http.StatusPermanentRedirect || answer.Header.Get("Location") != want {
			t.Errorf("%q: %s to %q, want %q", request, answer.Status, answer.Header.Get("Location"), want)
		}
	}
	e.send("GET /ws HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n").refused(http.StatusNotFound)
	e.send("GET /ws/../secret HTTP/1.1\r\nHost: edge.test\r\n\r\n").refused(http.StatusNotFound)
	e.send("GET /ws HTTP/1.0\r\n\r\n").refused(http.StatusNotFound)
	c := e.at(1).sendTLS(a.client("edge.test"), upgradeTo("/ws?user=x"))
	if answer := c.head(); answer.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("by TLS: %s", answer.Status)
	}
}

// Behind a proxy that has ended TLS, sending clients to https would send them round in circles.
func TestRedirectBelievesTrustedProxies(t *testing.T) {
	for _, trusted := range []bool{true, false} {
		cfg := Config{Listen: []Listener{{Addr: "127.0.0.1:0", RedirectHTTPS: true}}, Membership: members(listenBackend(t, echo("b0")))}
		want := http.StatusPermanentRedirect
		if trusted {
			cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
			want = http.StatusSwitchingProtocols
		}
		e := start(t, cfg)
		if answer := e.send(upgradeTo("/?user=a", "X-Forwarded-Proto: https")).head(); answer.StatusCode != want {
			t.Errorf("trusted %v: %s, want %d", trusted, answer.Status, want)
		}
		if answer := e.send(upgradeTo("/?user=a", "X-Forwarded-Proto: http")).head(); answer.StatusCode != http.StatusPermanentRedirect {
			t.Errorf("trusted %v, http: %s", trusted, answer.Status)
		}
	}
}

func TestSecureHost(t *testing.T) {
	for _, c := range []struct{ host, ours, secure, want string }{
		{"a.test", "80", "443", "a.test"},
		{"a.test", "80", "8443", "a.test:8443"},
		{"a.test", "8080", "8443", "a.test"}, // 80 is mapped to 8080, so 443 is to 8443
		{"a.test:8080", "8080", "8443", "a.test:8443"},
		{"a.test:8080", "8080", "", "a.test"},
		{"a.test:81", "8080", "8443", "a.test"},
		{"[::1]", "80", "443", "[::1]"},
		{"[::1]:8080", "8080", "8443", "[::1]:8443"},
		{"[::1]:8080", "80", "8443", "[::1]"},
	} {
		if got := secureHost(c.host, c.ours, c.secure); got != c.want || strings.Contains(got, "[[") {
			t.Errorf("%+v: %q", c, got)
		}
	}
}
