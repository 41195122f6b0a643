package edge

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/selvedge/selvedge/internal/testkit"
)

// tellsClient switches, and says who it was told is the client.
func tellsClient(conn net.Conn, br *bufio.Reader, r *http.Request) {
	say(conn, "%s%s %s\n", switched(r, ""), r.Header.Get("X-Forwarded-For"), r.Header.Get("X-Forwarded-Proto"))
	_, _ = io.Copy(conn, br)
}

// proxied is the header that a balancer sends.
func proxied(t testing.TB, version byte, command proxyproto.ProtocolVersionAndCommand, source, destination string, tlvs ...proxyproto.TLV) string {
	t.Helper()
	h := proxyproto.HeaderProxyFromAddrs(version, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(source)),
		net.TCPAddrFromAddrPort(netip.MustParseAddrPort(destination)))
	h.Command = command
	if err := h.SetTLVs(tlvs); err != nil {
		t.Fatal(err)
	}
	text, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestProxyProtocol(t *testing.T) {
	a := newAuthority(t)
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	listen := []Listener{{Addr: "127.0.0.1:0", ProxyProtocol: true}}
	plain := start(t, Config{Listen: listen, TrustedProxies: loopback, Membership: members(listenBackend(t, tellsClient))})
	secure := secureListener(a.leaf("edge.test"))
	secure.ProxyProtocol = true
	overTLS := start(t, Config{Listen: []Listener{secure}, TrustedProxies: loopback, Membership: members(listenBackend(t, tellsClient))})

	v4, v6 := "192.0.2.7:4711", "[2001:db8::7]:4711"
	for name, c := range map[string]struct{ header, client string }{
		"v1":               {proxied(t, 1, proxyproto.PROXY, v4, "192.0.2.1:443"), "192.0.2.7"},
		"v1, IPv6":         {proxied(t, 1, proxyproto.PROXY, v6, "[2001:db8::1]:443"), "2001:db8::7"},
		"v1, unknown":      {"PROXY UNKNOWN\r\n", "127.0.0.1"},
		"v2":               {proxied(t, 2, proxyproto.PROXY, v4, "192.0.2.1:443"), "192.0.2.7"},
		"v2, IPv6":         {proxied(t, 2, proxyproto.PROXY, v6, "[2001:db8::1]:443"), "2001:db8::7"},
		"v2, health check": {proxied(t, 2, proxyproto.LOCAL, v4, "192.0.2.1:443"), "127.0.0.1"},
		"v2, with TLVs": {proxied(t, 2, proxyproto.PROXY, v4, "192.0.2.1:443", proxyproto.TLV{Type: 0xe4, Value: make([]byte, 3000)}),
			"192.0.2.7"},
	} {
		c1 := plain.send(c.header + upgradeTo("/?user=a") + "frames\n")
		if answer := c1.head(); answer.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("%s: %s", name, answer.Status)
		}
		if got, frames := c1.line(), c1.line(); got != c.client+" http" || frames != "frames" {
			t.Errorf("%s: the member was told %q, and got %q", name, got, frames)
		}
		c2 := overTLS.dial()
		say(c2, "%s", c.header)
		c2.over(a.client("edge.test"))
		say(c2, "%s", upgradeTo("/?user=a", "X-Forwarded-For: 10.9.9.9")+"frames\n") // the client's word, which counts for nothing
		c2.head()
		want := c.client + " https"
		if c.client == "127.0.0.1" {
			want = "10.9.9.9, " + want // the proxy itself speaks, and its word counts
		}
		if got, frames := c2.line(), c2.line(); got != want || frames != "frames" {
			t.Errorf("%s, TLS: the member was told %q, want %q, and got %q", name, got, want, frames)
		}
	}
}

// Whoever does not begin with a header, or may not, is turned away without a word: what it says may be meant for another protocol.
func TestProxyProtocolTurnsAway(t *testing.T) {
	e := start(t, Config{
		Listen: []Listener{{Addr: "127.0.0.1:0", ProxyProtocol: true}}, Membership: members(listenBackend(t, tellsClient)),
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
	})
	stranger := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	good := proxied(t, 1, proxyproto.PROXY, "192.0.2.7:4711", "192.0.2.1:443")
	for name, c := range map[string]struct {
		from *net.Dialer
		says string
	}{
		"a stranger":           {stranger, good + upgradeTo("/?user=a")},
		"no header":            {&net.Dialer{}, upgradeTo("/?user=a")},
		"v1 without end":       {&net.Dialer{}, "PROXY TCP4 " + strings.Repeat("1", 200)},
		"v1, wrong family":     {&net.Dialer{}, "PROXY TCP6 192.0.2.7 192.0.2.1 4711 443\r\n" + upgradeTo("/?user=a")},
		"v1, a word too many":  {&net.Dialer{}, "PROXY TCP4 192.0.2.7 192.0.2.1 4711 443 x\r\n" + upgradeTo("/?user=a")},
		"v2, no such version":  {&net.Dialer{}, string(proxyproto.SIGV2) + "\x31\x11\x00\x0c" + strings.Repeat("\x01", 12)},
		"v2, larger than life": {&net.Dialer{}, string(proxyproto.SIGV2) + "\x21\x11\xff\xff" + strings.Repeat("\x01", 1000)},
		"v2, too short":        {&net.Dialer{}, string(proxyproto.SIGV2) + "\x21\x11\x00\x02\x01\x01" + upgradeTo("/?user=a")},
	} {
		conn, err := c.from.Dial("tcp", e.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		say(conn, "%s", c.says)
		if got, err := io.ReadAll(conn); len(got) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: answered %q, %v", name, got, err)
		}
		_ = conn.Close()
	}
	testkit.Eventually(t, patience, func() bool {
		return e.metric(`selvedge_edge_refusals_total{reason="bad_proxy_header"}`) == "8"
	}, "all eight are counted")
}

// A header that comes in pieces is one all the same; a connection that breaks off in it is over.
func TestTakeProxyHeader(t *testing.T) {
	for _, header := range []string{
		proxied(t, 1, proxyproto.PROXY, "192.0.2.7:4711", "192.0.2.1:443"),
		proxied(t, 2, proxyproto.PROXY, "[2001:db8::7]:1", "[2001:db8::1]:2", proxyproto.TLV{Type: 0xe4, Value: []byte("x")}),
	} {
		r := strings.NewReader(header + "rest")
		got, err := takeProxyHeader(iotest.OneByteReader(r))
		if string(got) != header || err != nil || r.Len() != len("rest") {
			t.Errorf("took %q, %v, and left %d bytes", got, err, r.Len())
		}
		for n := range len(header) {
			if _, err := takeProxyHeader(strings.NewReader(header[:n])); !errors.Is(err, io.EOF) {
				t.Errorf("%q: %v", header[:n], err)
			}
		}
	}
}

// FuzzProxyHeader holds our reading of a header by its size against the library's, which reads ahead: both take the same bytes, or neither
// takes any.
func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte(proxied(f, 1, proxyproto.PROXY, "192.0.2.7:4711", "192.0.2.1:443") + "GET / HTTP/1.1\r\n"))
	f.Add([]byte(proxied(f, 2, proxyproto.PROXY, "[2001:db8::7]:1", "[2001:db8::1]:2", proxyproto.TLV{Type: 0xe4, Value: []byte("x")}) + "rest"))
	f.Add([]byte(proxied(f, 2, proxyproto.LOCAL, "192.0.2.7:1", "192.0.2.1:2")))
	f.Add([]byte("PROXY UNKNOWN\r\nGET"))
	f.Add([]byte("PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n"))
	f.Add(append(slices.Clone(proxyproto.SIGV2), 0x21, 0x11, 0xff, 0xff))
	f.Fuzz(func(t *testing.T, in []byte) {
		ours := bytes.NewReader(in)
		raw, err := takeProxyHeader(ours)
		var header *proxyproto.Header
		if err == nil {
			header, err = parseProxyHeader(raw)
		}
		// The library wants the whole of a first version in its buffer at once.
		ahead := bufio.NewReaderSize(bytes.NewReader(in), 1<<17)
		want, wantErr := proxyproto.Read(ahead)
		if wantErr == nil && err != nil && len(raw) < mostProxyHeaderV2 && !strings.Contains(err.Error(), "at most") {
			t.Fatalf("%q: refused: %v; the library takes it", in, err)
		}
		if err != nil {
			return
		}
		if wantErr != nil || !header.EqualsTo(want) {
			t.Fatalf("%q: taken as %+v; the library: %+v, %v", in, header, want, wantErr)
		}
		rest, _ := io.ReadAll(ours)
		wantRest, _ := io.ReadAll(ahead)
		if !bytes.Equal(rest, wantRest) {
			t.Fatalf("%q: left %q, the library %q", in, rest, wantRest)
		}
	})
}
