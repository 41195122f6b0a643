package edge

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/pires/go-proxyproto"
)

// listenTLSBackend is listenBackend by TLS. What a connection says first, up to a PROXY header's end, is taken off by before.
func listenTLSBackend(t *testing.T, cfg *tls.Config, answer backendFunc) string {
	t.Helper()
	return listenRaw(t, func(conn net.Conn) {
		over := tls.Server(conn, cfg)
		br := bufio.NewReader(over)
		if r, err := http.ReadRequest(br); err == nil {
			answer(over, br, r)
			_ = over.Close()
		}
	})
}

// listenRaw serves each connection, which is closed when serve returns, or when the test is over.
func listenRaw(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[conn] = true
			mu.Unlock()
			wg.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for conn := range open {
			_ = conn.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return ln.Addr().String()
}

// Mutual TLS to the members, for upgrades and for plain requests; and who shows nothing, or is another, is not talked to.
func TestMemberTLS(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	server := &tls.Config{
		Certificates: []tls.Certificate{a.pair(a.leaf("member.test", "127.0.0.1"))}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.pool,
	}
	backend := listenTLSBackend(t, server, func(conn net.Conn, br *bufio.Reader, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			say(conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain")
			return
		}
		echo("b0")(conn, br, r)
	})
	edge := a.leaf("edge.test")
	for name, c := range map[string]struct {
		tls  MemberTLS
		good bool
	}{
		"mutual":         {MemberTLS{CA: a.file, Cert: edge.Cert, Key: edge.Key}, true},
		"by name":        {MemberTLS{CA: a.file, Cert: edge.Cert, Key: edge.Key, ServerName: "member.test"}, true},
		"another name":   {MemberTLS{CA: a.file, Cert: edge.Cert, Key: edge.Key, ServerName: "other.test"}, false},
		"unknown":        {MemberTLS{CA: stranger.file, Cert: edge.Cert, Key: edge.Key}, false},
		"no certificate": {MemberTLS{CA: a.file}, false},
	} {
		t.Run(name, func(t *testing.T) {
			e := start(t, Config{Services: map[string]ServiceConfig{DefaultService: {TLS: &c.tls}}, Membership: members(backend)})
			upgrade, plain := e.send(upgradeTo("/?user=a")), e.send("GET /?user=a HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n\r\n")
			if !c.good {
				upgrade.refused(http.StatusServiceUnavailable)
				plain.refused(http.StatusServiceUnavailable)
				return
			}
			if answer := upgrade.head(); answer.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("upgrade: %s", answer.Status)
			}
			if got := upgrade.line(); got != "b0/a" {
				t.Errorf("upgrade: %q", got)
			}
			say(upgrade, "ping\n")
			if got := upgrade.line(); got != "ping" {
				t.Errorf("echoed %q", got)
			}
			answer := plain.head()
			if body, err := io.ReadAll(answer.Body); string(body) != "plain" || err != nil {
				t.Errorf("plain: %s %q, %v", answer.Status, body, err)
			}
		})
	}
}

// A session with TLS on both sides is exact to the byte, in chunks of random sizes, both ways at once, with an end to each.
func TestTLSBothSidesByteForByte(t *testing.T) {
	a := newAuthority(t)
	const size = 4 << 20
	random := func(w io.Writer, seed byte) [sha256.Size]byte {
		source, hash := rand.NewChaCha8([32]byte{seed}), sha256.New()
		for left, buf := size, make([]byte, 100<<10); left > 0; {
			chunk := buf[:min(left, 1+int(source.Uint64()%uint64(len(buf))))]
			_, _ = source.Read(chunk)
			hash.Write(chunk)
			if _, err := w.Write(chunk); err != nil {
				t.Error(err)
				break
			}
			left -= len(chunk)
		}
		return [sha256.Size]byte(hash.Sum(nil))
	}
	server := &tls.Config{Certificates: []tls.Certificate{a.pair(a.leaf("127.0.0.1"))}}
	sent, got := make(chan [sha256.Size]byte, 1), make(chan [sha256.Size]byte, 1)
	backend := listenTLSBackend(t, server, func(conn net.Conn, br *bufio.Reader, r *http.Request) {
		say(conn, "%s", switched(r, ""))
		var wg sync.WaitGroup
		wg.Go(func() {
			sent <- random(conn, 1)
			_ = conn.(*tls.Conn).CloseWrite()
		})
		hash := sha256.New()
		if n, err := io.Copy(hash, br); n != size || err != nil {
			t.Errorf("the member got %d bytes, %v", n, err)
		}
		got <- [sha256.Size]byte(hash.Sum(nil))
		wg.Wait()
	})
	e := start(t, Config{
		Listen:   []Listener{secureListener(a.leaf("edge.test"))},
		Services: map[string]ServiceConfig{DefaultService: {TLS: &MemberTLS{CA: a.file}}}, Membership: members(backend),
	})
	e.nothingLeft(func() {
		c := e.sendTLS(a.client("edge.test"), upgradeTo("/?user=a"))
		c.head()
		sums := make(chan [sha256.Size]byte, 1)
		go func() {
			sums <- random(c, 2)
			_ = c.Conn.(*tls.Conn).CloseWrite()
		}()
		hash := sha256.New()
		if n, err := io.Copy(hash, c.br); n != size || err != nil {
			t.Errorf("the client got %d bytes, %v", n, err)
		}
		if mine, theirs := <-sums, <-got; mine != theirs {
			t.Error("other bytes arrived at the member")
		}
		if mine := <-sent; !bytes.Equal(mine[:], hash.Sum(nil)) {
			t.Error("other bytes arrived at the client")
		}
		_ = c.Close()
	})
}

// Members are told each client by a PROXY header, before TLS if there is any, and no connection is used for two.
func TestProxyHeaderToMembers(t *testing.T) {
	a := newAuthority(t)
	server := &tls.Config{Certificates: []tls.Certificate{a.pair(a.leaf("127.0.0.1"))}}
	for _, version := range []ProxyProtocol{ProxyV1, ProxyV2} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprint(version, secure), func(t *testing.T) {
				backend := listenRaw(t, func(conn net.Conn) {
					raw, err := takeProxyHeader(conn)
					if err != nil {
						t.Error(err)
						return
					}
					header, err := parseProxyHeader(raw)
					if err != nil || header.Command != proxyproto.PROXY || "v"+fmt.Sprint(header.Version) != string(version) {
						t.Errorf("told %+v, %v", header, err)
						return
					}
					if secure {
						over := tls.Server(conn, server)
						defer over.Close()
						conn = over
					}
					br := bufio.NewReader(conn)
					for {
						r, err := http.ReadRequest(br)
						if err != nil {
							return
						}
						told := fmt.Sprint(header.SourceAddr, " ", header.DestinationAddr)
						if r.Header.Get("Upgrade") != "" {
							say(conn, "%s%s\n", switched(r, ""), told)
							_, _ = io.Copy(conn, br)
							return
						}
						say(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(told), told)
					}
				})
				own := ServiceConfig{ProxyProtocol: version}
				if secure {
					own.TLS = &MemberTLS{CA: a.file}
				}
				e := start(t, Config{Services: map[string]ServiceConfig{DefaultService: own}, Membership: members(backend)})
				for range 2 {
					c := e.send(upgradeTo("/?user=a"))
					c.head()
					if got, want := c.line(), fmt.Sprint(c.LocalAddr(), " ", c.RemoteAddr()); got != want {
						t.Errorf("upgrade: told %q, want %q", got, want)
					}
					c = e.send("GET /?user=a HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n\r\n")
					answer := c.head()
					body, err := io.ReadAll(answer.Body)
					if want := fmt.Sprint(c.LocalAddr(), " ", c.RemoteAddr()); string(body) != want || err != nil {
						t.Errorf("plain: told %q, %v, want %q", body, err, want)
					}
				}
			})
		}
	}
}

func TestMemberTLSFilesAreNamed(t *testing.T) {
	_, err := New(Config{Membership: members(), Services: map[string]ServiceConfig{DefaultService: {TLS: &MemberTLS{CA: "nowhere.pem"}}}})
	if err == nil || !strings.Contains(err.Error(), "nowhere.pem") {
		t.Errorf("%v", err)
	}
}
