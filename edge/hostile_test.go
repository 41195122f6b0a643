package edge

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// planted marks all that is secret in the corpus: ids, tokens, cookies, tickets. It must come out nowhere but at the backend.
const planted = "pl4nted"

// secretFields are in each request of the corpus that has fields at all.
const secretFields = "Cookie: sid=" + planted + "-cookie\r\nX-Api-Key: " + planted + "-key\r\n"

// hostile is a request that strangers send.
type hostile struct {
	name, text string
	status     int  // of the answer; 0: the connection ends without one
	reaches    bool // a backend may see it
}

// corpus is what must not get through, and some that must, to show that the corpus is what is refused and not its frame.
func corpus(token string) []hostile {
	const target = "/ws?user=" + planted + "&selvedge_ticket=" + planted + "-ticket"
	up := func(fields ...string) string {
		return strings.Replace(upgradeTo(target, fields...), "Host: edge.test\r\n", "Host: edge.test\r\n"+secretFields, 1)
	}
	good := up()
	changed := func(from, to string) string {
		if !strings.Contains(good, from) {
			panic(from)
		}
		return strings.Replace(good, from, to, 1)
	}
	post := func(fields, body string) string {
		return "POST " + target + " HTTP/1.1\r\nHost: edge.test\r\n" + secretFields + strings.ReplaceAll(fields, "\n", "\r\n") + "\r\n\r\n" + body
	}
	const second = "GET /smuggled?user=mallory HTTP/1.1\r\nHost: edge.test\r\n\r\n"
	user := func(raw string) string { return changed("user="+planted, "user="+raw) }
	return []hostile{
		{"an upgrade", good, 101, true},
		{"a request", post("Content-Length: 2", "hi"), 200, true},

		// Two readings of where a request ends. Chunks count where both are said (RFC 9112 section 6.3), and that alone is passed on.
		{"CL and TE", post("Content-Length: 4\nTransfer-Encoding: chunked", "0\r\n\r\n"), 200, true},
		{"TE and CL", post("Transfer-Encoding: chunked\nContent-Length: 400", "0\r\n\r\n"), 200, true},
		{"two lengths", post("Content-Length: 2\nContent-Length: 3", "hi"+second), 400, false},
		{"two lengths in a list", post("Content-Length: 2, 3", "hi"), 400, false},
		{"signed length", post("Content-Length: +2", "hi"), 400, false},
		{"negative length", post("Content-Length: -2", "hi"), 400, false},
		{"hexadecimal length", post("Content-Length: 0x2", "hi"), 400, false},
		{"huge length", post("Content-Length: 99999999999999999999", "hi"), 400, false},
		{"empty length", post("Content-Length:", second), 400, false},
		{"chunked twice", post("Transfer-Encoding: chunked\nTransfer-Encoding: chunked", "0\r\n\r\n"), 501, false},
		{"chunked, identity", post("Transfer-Encoding: chunked, identity", "0\r\n\r\n"), 501, false},
		{"chunked by another name", post("Transfer-Encoding: xchunked", "0\r\n\r\n"), 501, false},
		{"TE with a vertical tab", post("Transfer-Encoding: \x0bchunked", "0\r\n\r\n"), 400, false},
		{"TE with a space before the colon", post("Transfer-Encoding : chunked", "0\r\n\r\n"), 400, false},
		{"TE folded", post("Transfer-Encoding:\n chunked", "0\r\n\r\n"), 200, true},
		{"chunk size with a sign", post("Transfer-Encoding: chunked", "+2\r\nhi\r\n0\r\n\r\n"), 400, true},
		{"chunk size with 0x", post("Transfer-Encoding: chunked", "0x2\r\nhi\r\n0\r\n\r\n"), 400, true},
		{"chunk size too long", post("Transfer-Encoding: chunked", "fffffffffffffffff\r\nhi\r\n0\r\n\r\n"), 400, true},
		{"chunk without CRLF after it", post("Transfer-Encoding: chunked", "2\r\nhiXX0\r\n\r\n"+second), 400, true},
		{"chunk ended by bare LF", post("Transfer-Encoding: chunked", "2\nhi\n0\n\n"+second), 400, true},
		{"chunk extension with bare LF", post("Transfer-Encoding: chunked", "2;\nxx\r\nhi\r\n0\r\n\r\n"+second), 400, true},

		// Lines that end, or go on, oddly. A folded one is passed on in one (RFC 9112 section 5.2).
		{"obs-fold", up("X-Long: a", " b"), 101, true},
		{"obs-fold before the first field", changed("HTTP/1.1\r\n", "HTTP/1.1\r\n X: y\r\n"), 400, false},
		{"bare CR in a value", changed("websocket\r\n", "web\rsocket\r\n"), 400, false},
		{"CR CR LF", changed("websocket\r\n", "websocket\r\r\n"), 400, false},
		{"NUL in a value", up("X-Nul: a\x00b"), 400, false},
		{"NUL in a name", up("X-\x00Nul: ab"), 400, false},
		{"NUL in the target", changed("/ws", "/w\x00s"), 400, false},
		{"control in a value", up("X-Bell: a\x07b"), 400, false},
		{"space before the colon", up("X-Odd : a"), 400, false},
		{"field without a name", up(": a"), 400, false},
		{"field without a colon", up("X-Odd"), 400, false},
		{"name with a space", up("X Odd: a"), 400, false},

		// Targets and hosts.
		{"absolute URI, the same host", changed("GET /", "GET http://edge.test/"), 101, true},
		{"absolute URI with a user", changed("GET /", "GET http://a@b@edge.test/"), 400, false},
		{"another scheme", changed("GET /", "GET gopher://edge.test/"), 400, false},
		{"authority", changed("GET "+target, "GET edge.test:80"), 400, false},
		{"CONNECT", "CONNECT edge.test:80 HTTP/1.1\r\nHost: edge.test:80\r\n" + secretFields + "\r\n" + second, 400, false},
		{"star", changed(target, "*"), 400, false},
		{"no target", changed("GET "+target, "GET"), 400, false},
		{"space in the target", changed("/ws?", "/w s?"), 400, false},
		{"above the root", changed("/ws?", "/../ws?"), 400, false},
		{"above the root, encoded", changed("/ws?", "/%2e%2e/ws?"), 400, false},
		{"NUL, encoded", changed("/ws?", "/ws%00?"), 400, false},
		{"no Host", changed("Host: edge.test\r\n", ""), 400, false},
		{"two Hosts", up("Host: evil.test"), 400, false},
		{"Host with a path", changed("Host: edge.test", "Host: edge.test/x"), 400, false},
		{"Host with a user", changed("Host: edge.test", "Host: a@edge.test"), 400, false},
		{"HTTP/0.9", "GET " + target + "\r\n\r\n", 400, false},
		{"HTTP/3.0", changed("HTTP/1.1", "HTTP/3.0"), 505, false},
		{"HTTP/2 by prior knowledge", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, false},
		{"no HTTP", "\x00\x01\x02\x03\r\n\r\n", 400, false},

		// Upgrades that are none.
		{"upgrade with a body", up("Content-Length: 5") + "hello", 400, false},
		{"upgrade with a chunked body", up("Transfer-Encoding: chunked") + "0\r\n\r\n" + second, 400, false},
		{"upgrade by POST", changed("GET", "POST"), 400, false},
		{"upgrade in HTTP/1.0", changed("HTTP/1.1", "HTTP/1.0"), 400, false},
		{"no key", changed("Sec-WebSocket-Key", "X-Key"), 400, false},
		{"two keys", up("Sec-WebSocket-Key: " + sampleKey), 400, false},
		{"key too short", changed(sampleKey, "c2hvcnQ="), 400, false},
		{"upgrade to h2c", changed("Upgrade: websocket", "Upgrade: h2c"), 200, true}, // as if it did not ask
		{"websocket and h2c", changed("Upgrade: websocket", "Upgrade: h2c, websocket"), 101, true},

		// Sizes.
		{"1 MiB of one field", up("X-Big: " + strings.Repeat("x", 1<<20)), 431, false},
		{"1 MiB of many fields", up(strings.TrimSuffix(strings.Repeat("X-Y: 12345678\r\n", 70_000), "\r\n")), 431, false},
		{"1 MiB of a target", changed("/ws?", "/ws?x="+strings.Repeat("x", 1<<20)+"&"), 431, false},

		// Who are you?
		{"not UTF-8", user("%ff"), 400, false},
		{"overlong slash", user("a%c0%afb"), 400, false},
		{"overlong NUL", user("a%c0%80"), 400, false},
		{"surrogate", user("%ed%a0%80"), 400, false},
		{"encoded twice", user("%2561"), 101, true}, // decoded once: somebody called %61
		{"control", user("a%0d%0aX-Selvedge-User:%20root"), 400, false},
		{"too long", user(strings.Repeat("a", 257)), 400, false},
		{"two ids", user(planted + "&user=mallory"), 400, false},
		{"two ids, one hidden", user(planted + "&us%65r=mallory"), 400, false},
		{"bare semicolon", user(planted + ";user=mallory"), 400, false},
		{"bad escape", user("%zz"), 400, false},
		{"no token", changed("/ws?", "/jwt/?"), 401, false},
		{"token that is none", strings.Replace(changed("/ws?", "/jwt/?"), "Host:", "Authorization: Bearer "+planted+".e30.x\r\nHost:", 1), 401, false},
		{"token in the query", changed("/ws?", "/jwt/?access_token="+token+"&"), 101, true},
		{"spoofed user", up("X-Selvedge-User: mallory", "x_selvedge_user: mallory", "Connection: X-Selvedge-User"), 101, true},

		// Backends that do not switch: never a raw pipe.
		{"backend says 200", changed("/ws?", "/ws?answer=200&"), 502, true},
		{"backend says 403", changed("/ws?", "/ws?answer=403&"), 403, true},
		{"backend has no accept key", changed("/ws?", "/ws?answer=none&"), 502, true},
		{"backend has a wrong accept key", changed("/ws?", "/ws?answer=wrong&"), 502, true},
		{"backend has two accept keys", changed("/ws?", "/ws?answer=two&"), 502, true},
		{"backend switches to h2c", changed("/ws?", "/ws?answer=h2c&"), 502, true},
		{"backend switches a request that did not ask", post("Content-Length: 0\nX-Answer: 101", ""), 502, true},
	}
}

// hostileBackend answers as it is told, and notes what it must not see.
type hostileBackend struct {
	mu   sync.Mutex
	seen int
	bad  []string
}

func (b *hostileBackend) note(what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bad = append(b.bad, what)
}

func (b *hostileBackend) serve(conn net.Conn, br *bufio.Reader, r *http.Request) {
	b.mu.Lock()
	b.seen++
	b.mu.Unlock()
	folded := r.Header.Get("X-Long")
	both := r.Header.Get("Content-Length") != "" && len(r.TransferEncoding) > 0
	if both || folded != "" && folded != "a b" || strings.Contains(r.RequestURI, "smuggled") || strings.Contains(r.Header.Get("X-Selvedge-User"), "mallory") || strings.Contains(r.RequestURI, "access_token") {
		b.note(r.RequestURI + " of " + r.Header.Get("X-Selvedge-User"))
	}
	answer := r.URL.Query().Get("answer")
	accept := acceptFor(r.Header.Get("Sec-WebSocket-Key"))
	const head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
	switch {
	case answer == "200":
		say(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
	case answer == "403":
		say(conn, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
	case answer == "none":
		say(conn, "%sUpgrade: websocket\r\n\r\n", head)
	case answer == "wrong":
		say(conn, "%sUpgrade: websocket\r\nSec-WebSocket-Accept: AAAA\r\n\r\n", head)
	case answer == "two":
		say(conn, "%sUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\nSec-WebSocket-Accept: AAAA\r\n\r\n", head, accept)
	case answer == "h2c":
		say(conn, "%sUpgrade: h2c\r\nSec-WebSocket-Accept: %s\r\n\r\n", head, accept)
	case r.Header.Get("X-Answer") == "101":
		say(conn, "%sUpgrade: websocket\r\n\r\n", head)
	case wantsWebSocket(r):
		say(conn, "%s", switched(r, ""))
		return // what follows belongs to it
	default:
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return // the edge broke the body off
		}
		say(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		return
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if n, _ := io.Copy(io.Discard, br); n > 0 {
		b.note("bytes of a client after " + answer)
	}
}

// syncBuffer is a log that can be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

// TestHostile sends the corpus over each way in. What is refused is refused in the contract's words, reaches no backend and is counted;
// nothing is kept of it, and nothing secret comes out.
func TestHostile(t *testing.T) {
	is := newIssuer(t, "k")
	token := is.token(planted, anHour)
	ca := newAuthority(t)
	secure := ca.client("edge.test")
	for way, dial := range map[string]func(*running) *client{
		"plain": func(e *running) *client { return e.dial() },
		"tls":   func(e *running) *client { c := e.at(1).dial(); c.over(secure); return c },
	} {
		if slowPath && way == "tls" {
			continue // it is net/http anyway
		}
		t.Run(way, func(t *testing.T) {
			var logs syncBuffer
			access := filepath.Join(t.TempDir(), "access.log")
			backend := new(hostileBackend)
			e := start(t, Config{
				Listen:     []Listener{{Addr: "127.0.0.1:0"}, secureListener(ca.leaf("edge.test"))},
				Membership: members(listenBackend(t, backend.serve)), AccessLog: AccessLog{Path: access},
				Routes: []Route{{}, {Path: "/jwt/", Key: "jwt:sub"}},
				Auth:   Auth{JWKS: is.file(), Audience: "chat", Token: "header,query:access_token"},
				Logger: zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&logs), zap.DebugLevel)),
			})
			e.nothingLeft(func() {
				refused := e.counted("selvedge_edge_refusals_total")
				for _, c := range corpus(token) {
					backend.mu.Lock()
					before := backend.seen
					backend.mu.Unlock()
					client := dial(e)
					sent := make(chan struct{})
					go func() { defer close(sent); _, _ = io.WriteString(client, c.text) }() // the edge may hang up before it has all
					answer, err := http.ReadResponse(client.br, nil)                         //nolint:bodyclose // the connection ends
					status := 0
					if err == nil {
						status = answer.StatusCode
					}
					if status != c.status {
						t.Errorf("%s: answered %d, %v; want %d", c.name, status, err, c.status)
					}
					if status >= 400 && status != http.StatusForbidden {
						body, _ := io.ReadAll(answer.Body)
						if !bytes.HasPrefix(body, []byte(`{"error":`)) || bytes.Contains(body, []byte(planted)) {
							t.Errorf("%s: answered %q", c.name, body)
						}
						if answer.Close { // it does, but after a 502 of plain HTTP
							rest, err := io.ReadAll(client.br)
							if len(rest) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
								t.Errorf("%s: after the answer came %q, %v", c.name, rest, err)
							}
						} else if status != http.StatusBadGateway || strings.HasPrefix(c.text, "GET") {
							t.Errorf("%s: the connection goes on", c.name)
						}
					}
					_ = client.Close()
					<-sent
					backend.mu.Lock()
					if reached := backend.seen > before; reached && !c.reaches {
						t.Errorf("%s: a backend has seen it", c.name)
					}
					backend.mu.Unlock()
				}
				if n := e.counted("selvedge_edge_refusals_total") - refused; n < 60 {
					t.Errorf("%v refusals are counted", n)
				}
			})
			backend.mu.Lock()
			for _, what := range backend.bad {
				t.Errorf("a backend has seen %s", what)
			}
			backend.mu.Unlock()

			// Nothing secret in any output.
			_, page := e.admin("GET", "/", "")
			_, metrics := e.admin("GET", "/metrics", "")
			e.stop()
			if err := e.wait(); err != nil {
				t.Error(err)
			}
			lines, err := os.ReadFile(access)
			if err != nil || bytes.Count(lines, []byte("\n")) < 20 {
				t.Errorf("the access log has %d lines, %v", bytes.Count(lines, []byte("\n")), err)
			}
			logs.mu.Lock()
			defer logs.mu.Unlock()
			for name, text := range map[string]string{"page": page, "metrics": metrics, "access log": string(lines), "log": logs.String()} {
				for _, secret := range []string{planted, token, token[len(token)-40:]} {
					if i := strings.Index(text, secret); i >= 0 {
						t.Errorf("the %s tells %q", name, text[max(0, i-200):min(len(text), i+60)])
					}
				}
			}
		})
	}
}

// A second request on a connection is read by itself: it has no part in what the first one was told.
func TestSecondRequestIsItsOwn(t *testing.T) {
	users := make(chan string, 3)
	e := start(t, Config{Membership: members(listenBackend(t, func(conn net.Conn, _ *bufio.Reader, r *http.Request) {
		users <- r.Header.Get("X-Selvedge-User")
		say(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	})), Routes: []Route{{}, {Path: "/open", Key: "none"}}})
	c := e.send("GET /?user=alice HTTP/1.1\r\nHost: a\r\n\r\n" +
		"GET /open HTTP/1.1\r\nHost: a\r\nX-Selvedge-User: alice\r\nConnection: X-Selvedge-User, keep-alive\r\n\r\n" +
		"GET /?user=bob HTTP/1.1\r\nHost: a\r\nX-Selvedge-User: alice\r\n\r\n")
	for _, want := range []string{"alice", "", "bob"} {
		if got := c.head(); got.StatusCode != http.StatusOK {
			t.Fatalf("answered %s", got.Status)
		}
		if user := <-users; user != want {
			t.Errorf("the backend is told %q, want %q", user, want)
		}
	}
}

// Who sends a head or a body by the drop is let go of.
func TestSlowClients(t *testing.T) {
	const grace = 300 * time.Millisecond
	e := start(t, Config{Membership: members(listenBackend(t, func(conn net.Conn, _ *bufio.Reader, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			say(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		}
	}))}, func(e *Edge) { e.headTimeout, e.bodyGrace = grace, grace })
	e.nothingLeft(func() {
		head, body := e.dial(), e.dial()
		say(body, "POST /?user=a HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for conn, text := range map[net.Conn]string{head: "GET /?user=a HTTP/1.1\r\nX-Slow: ", body: ""} {
			say(conn, "%s", text)
			wg.Go(func() {
				for tick := time.NewTicker(20 * time.Millisecond); ; {
					select {
					case <-tick.C:
						say(conn, "x")
					case <-stop:
						tick.Stop()
						return
					}
				}
			})
		}
		body.refused(http.StatusRequestTimeout)
		_, _ = io.Copy(io.Discard, head.br) // ends, by FIN or reset
		close(stop)
		wg.Wait()
		if n := e.metric(`selvedge_edge_refusals_total{reason="slow_body"}`); n != "1" {
			t.Errorf("%s slow bodies", n)
		}
		// One that is fast enough is served, however long it takes.
		c := e.dial()
		say(c, "POST /?user=a HTTP/1.1\r\nHost: a\r\nContent-Length: 40960\r\n\r\n")
		for range 40 {
			say(c, "%s", strings.Repeat("x", 1024))
			<-time.After(grace / 20)
		}
		if got := c.head(); got.StatusCode != http.StatusOK {
			t.Errorf("a body at 68 KiB/s: %s", got.Status)
		}
		e.hangUp()
	})
}
