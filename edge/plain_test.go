package edge

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// serve is a backend of net/http.
func serve(t *testing.T, h http.HandlerFunc) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// get is a plain request as a client writes it.
func get(target string, fields ...string) string {
	return "GET " + target + " HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n" + strings.Join(append(fields, ""), "\r\n") + "\r\n"
}

func (c *client) whole() (answer, string) {
	c.t.Helper()
	got := c.head()
	body, err := io.ReadAll(got.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return got, string(body)
}

// Plain HTTP of a user reaches the member that holds the user's sessions, as it came.
func TestPlainReachesTheOwner(t *testing.T) {
	var addrs []string
	for i := range 3 {
		addrs = append(addrs, serve(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			w.Header().Set("X-From", fmt.Sprint("b", i))
			w.WriteHeader(http.StatusCreated)
			_, _ = fmt.Fprintf(w, "%s %s %s %s", r.Method, r.RequestURI, r.Host, body)
		}))
	}
	e := start(t, Config{Membership: members(addrs...)})
	for i := range 20 {
		user := fmt.Sprint("u", i)
		target := "/a%2Fb//c?x;y=%25&user=" + user
		target = strings.Replace(target, ";", "%3B", 1)
		c := e.send("PUT " + target + " HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")
		answer, body := c.whole()
		if answer.StatusCode != http.StatusCreated || answer.Header.Get("X-From") != order(e, user)[0] || body != "PUT "+target+" edge.test hello" {
			t.Errorf("%s: %s %v %q", user, answer.Status, answer.Header, body)
		}
	}
	if got := e.metric(`selvedge_edge_requests_total{code="2xx",service="default"}`); got != "20" {
		t.Errorf("requests: %s", got)
	}
}

func TestPlainWalksSuccessors(t *testing.T) {
	good := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "got %d", len(body))
	})
	e := start(t, Config{Membership: members(deadAddr(t), good, deadAddr(t))})
	for i := range 10 {
		c := e.send(fmt.Sprintf("POST /?user=u%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody", i))
		if answer, body := c.whole(); answer.StatusCode != http.StatusOK || body != "got 4" {
			t.Errorf("u%d: %s %s", i, answer.Status, body)
		}
	}
}

// A request that may have had an effect is never sent twice.
func TestPlainRepeatsOnlyWhatIsSafe(t *testing.T) {
	asked := new(atomic.Int32)
	hangUp := func(net.Conn, *bufio.Reader, *http.Request) { asked.Add(1) }
	e := start(t, Config{Membership: members(listenBackend(t, hangUp), listenBackend(t, hangUp), listenBackend(t, hangUp))})
	for _, c := range []struct {
		request string
		status  int
		asked   int32
	}{
		{get("/?user=a"), 503, 3},
		{"POST /?user=a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 502, 1},
		{"POST /?user=a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", 502, 1},
	} {
		asked.Store(0)
		e.send(c.request).refused(c.status)
		if asked.Load() != c.asked {
			t.Errorf("%q: asked %d times, want %d", c.request, asked.Load(), c.asked)
		}
	}
}

func TestPlainAnswersThatAreNone(t *testing.T) {
	accept := acceptFor(sampleKey)
	for name, c := range map[string]struct {
		answer backendFunc
		status int
	}{
		"no HTTP":            {answering("SSH-2.0\n\n"), 502},
		"switches":           {answering("HTTP/1.1 101 X\nUpgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Accept: " + accept + "\n\nraw"), 502},
		"switches, silently": {answering("HTTP/1.1 101 X\n\nraw"), 502},
		"too late":           {func(_ net.Conn, br *bufio.Reader, _ *http.Request) { _, _ = br.ReadByte() }, 504},
	} {
		t.Run(name, func(t *testing.T) {
			e := start(t, Config{Membership: members(listenBackend(t, c.answer)), Routes: []Route{{Timeout: 200 * time.Millisecond}}})
			for _, fields := range [][]string{nil, {"Upgrade: h2c"}, {"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AA"}} {
				client := e.send(get("/?user=a", fields...) + "GET /second")
				client.refused(c.status)
				client.ended()
			}
		})
	}
}

func TestUpgradeNeverReachesAPlainBackend(t *testing.T) {
	heads := make(chan http.Header, 1)
	addr := serve(t, func(_ http.ResponseWriter, r *http.Request) { heads <- r.Header })
	e := start(t, Config{Membership: members(addr)})
	e.send(get("/?user=a", "Connection: Upgrade", "Upgrade: h2c", "HTTP2-Settings: AA")).whole()
	if h := <-heads; h["Upgrade"] != nil || h["Connection"] != nil || h["Http2-Settings"] != nil {
		t.Errorf("the backend saw %v", h)
	}
}

func TestTrailersCannotSpoof(t *testing.T) {
	trailers := make(chan http.Header, 1)
	addr := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		trailers <- r.Trailer
	})
	e := start(t, Config{Membership: members(addr)})
	e.send("POST /?user=a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: X-Selvedge-User\r\n\r\n" +
		"2\r\nhi\r\n0\r\nX-Selvedge-User: mallory\r\n\r\n").whole()
	if h := <-trailers; len(h) != 0 {
		t.Errorf("trailers %v", h)
	}
}

func TestBodyLimit(t *testing.T) {
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(w, r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
	})
	e := start(t, Config{Membership: members(addr), Routes: []Route{{BodyBytes: 10}}})
	post := "POST /?user=a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
	if answer, body := e.send(post + "Content-Length: 10\r\n\r\n0123456789").whole(); answer.StatusCode != http.StatusOK || body != "0123456789" {
		t.Errorf("at the limit: %s %q", answer.Status, body)
	}
	e.send(post + "Content-Length: 11\r\n\r\n0123456789a").refused(413)
	e.send(post + "Transfer-Encoding: chunked\r\n\r\nb\r\n0123456789a\r\n0\r\n\r\n").refused(413)
}

// Server-sent events reach the client as they are sent, and a client that leaves is noticed by the backend.
func TestServerSentEvents(t *testing.T) {
	more, left := make(chan string), make(chan struct{})
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		defer close(left)
		w.Header().Set("Content-Type", "text/event-stream")
		for {
			select {
			case text := <-more:
				_, _ = fmt.Fprintf(w, "data: %s\n\n", text)
				_ = http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				return
			}
		}
	})
	e := start(t, Config{Membership: members(addr)})
	c := e.send(get("/events?user=a"))
	more <- "0"
	body := bufio.NewReader(c.head().Body)
	for i := range 3 {
		if i > 0 {
			more <- fmt.Sprint(i)
		}
		if line, err := body.ReadString('\n'); err != nil || line != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("event %d: %q, %v", i, line, err)
		}
		if _, err := body.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	_ = c.Close()
	select {
	case <-left:
	case <-time.After(patience):
		t.Error("the backend still serves a client that has left")
	}
}

// An upgrade after plain requests on one connection, and a refused one whose frames are no request.
func TestKeepAliveThenUpgrade(t *testing.T) {
	addr := listenBackend(t, func(conn net.Conn, br *bufio.Reader, r *http.Request) {
		if wantsWebSocket(r) {
			echo("b0")(conn, br, r)
			return
		}
		say(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
	})
	e := start(t, Config{Membership: members(addr)})
	c := e.dial()
	for range 2 {
		say(c, "GET /?user=a HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, body := c.whole(); body != "ok" {
			t.Fatalf("got %q", body)
		}
	}
	say(c, "%s", upgradeTo("/ws?user=a"))
	if c.head().StatusCode != http.StatusSwitchingProtocols || c.line() != "b0/a" {
		t.Error("no session")
	}
	refused := e.send(upgradeTo("/ws") + "GET /smuggled?user=a HTTP/1.1\r\nHost: x\r\n\r\n")
	refused.refused(400)
	refused.ended()
	malformed := e.dial()
	say(malformed, "GET /?user=a HTTP/1.1\r\nHost: x\r\n\r\n")
	malformed.whole()
	say(malformed, "nonsense\r\n\r\n")
	malformed.refused(400)
}

// A kept connection to a backend is let go of before servers do: Node ends its after 5 s, and a POST that meets that cannot be repeated.
func TestIdleConnectionsEndFirst(t *testing.T) {
	fast(t)
	idle := make(chan time.Duration, 1)
	e := start(t, Config{Membership: members(listenBackend(t, func(conn net.Conn, br *bufio.Reader, _ *http.Request) {
		_ = conn.SetDeadline(time.Now().Add(patience))
		say(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		began := time.Now()
		_, _ = br.ReadByte()
		idle <- time.Since(began)
	}))})
	e.send(get("/?user=a")).whole()
	if took := <-idle; took < time.Second || took > 4800*time.Millisecond {
		t.Errorf("it was kept for %v; want some seconds, and less than 5", took)
	}
}
