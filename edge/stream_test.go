package edge

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// browsers returns clients of package net/http by the protocol that they speak with e, and the URL that each asks.
func (r *running) browsers() map[string]browser {
	r.t.Helper()
	s := httptest.NewUnstartedServer(r.Edge)
	s.EnableHTTP2 = true
	s.StartTLS()
	h1, h2 := new(http.Transport), s.Client().Transport.(*http.Transport)
	r.t.Cleanup(func() {
		h1.CloseIdleConnections()
		s.Close()
	})
	return map[string]browser{
		"HTTP/1.1": {&http.Client{Transport: h1, Timeout: patience}, "http://" + r.Addr().String()},
		"HTTP/2":   {&http.Client{Transport: h2, Timeout: patience}, s.URL},
	}
}

type browser struct {
	*http.Client
	url string
}

// ask sends a request and fails unless there is an answer in the protocol that b is for.
func (b browser) ask(t *testing.T, ctx context.Context, method, target string, body io.Reader) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, b.url+target, body)
	if err != nil {
		t.Fatal(err)
	}
	got, err := b.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { got.Body.Close() })
	if want := 1 + strings.Count(b.url, "https"); got.ProtoMajor != want {
		t.Fatalf("answered in %s", got.Proto)
	}
	return answer{got}
}

// Both directions flow at once: each line comes back before the next is sent.
func TestFullDuplex(t *testing.T) {
	e := start(t, Config{Membership: members(serve(t, func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		_ = c.EnableFullDuplex()
		_ = c.Flush()
		for lines := bufio.NewReader(r.Body); ; {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			_, _ = io.WriteString(w, line)
			_ = c.Flush()
		}
	}))})
	for proto, b := range e.browsers() {
		t.Run(proto, func(t *testing.T) {
			body, up := io.Pipe()
			answer := b.ask(t, t.Context(), http.MethodPost, "/?user=a", body)
			down := bufio.NewReader(answer.Body)
			for i := range 3 {
				_, _ = fmt.Fprintf(up, "line %d\n", i)
				if line, err := down.ReadString('\n'); err != nil || line != fmt.Sprintf("line %d\n", i) {
					t.Fatalf("line %d: %q, %v", i, line, err)
				}
			}
			_ = up.Close()
			if rest, err := io.ReadAll(down); err != nil || len(rest) > 0 {
				t.Errorf("at the end: %q, %v", rest, err)
			}
		})
	}
}

// Early hints, trailers of the answer, and a body of a type that the backend has not named pass as they are.
func TestAnswersPassAsTheyAre(t *testing.T) {
	e := start(t, Config{Membership: members(serve(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		h.Del("Link")
		h["Content-Type"] = nil
		if r.URL.Path == "/short" {
			_, _ = io.WriteString(w, "<html>") // net/http counts it
			return
		}
		h.Set("Trailer", "X-Sum")
		_, _ = io.WriteString(w, "<html>")
		h.Set("X-Sum", "1")
	}))})
	for proto, b := range e.browsers() {
		t.Run(proto, func(t *testing.T) {
			var hints []string
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				hints = append(hints, fmt.Sprint(code, h.Get("Link")))
				return nil
			}})
			answer := b.ask(t, ctx, http.MethodGet, "/?user=a", nil)
			if body, err := io.ReadAll(answer.Body); err != nil || string(body) != "<html>" || answer.Trailer.Get("X-Sum") != "1" {
				t.Errorf("%q, %v, trailers %v", body, err, answer.Trailer)
			}
			if h := answer.Header; h["Link"] != nil || h["Content-Type"] != nil {
				t.Errorf("fields %v", h)
			}
			short := b.ask(t, t.Context(), http.MethodGet, "/short?user=a", nil)
			if short.ContentLength != 6 || short.Header["Content-Type"] != nil {
				t.Errorf("fields %v", short.Header)
			}
			if len(hints) != 1 || hints[0] != "103</a.css>; rel=preload" {
				t.Errorf("hints %q", hints)
			}
		})
	}
	if answer := e.send("GET /?user=a HTTP/1.0\r\nHost: x\r\n\r\n").head(); answer.StatusCode != http.StatusOK {
		t.Errorf("HTTP/1.0, which knows no interim answers: %s", answer.Status)
	}
}

// A body that the backend refuses by its head alone is never asked for; one that it wants is.
func TestExpectContinue(t *testing.T) {
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Expect") != "100-continue" {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		if r.URL.Path == "/refused" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.WriteHeader(http.StatusEarlyHints)
		_, _ = io.Copy(w, r.Body)
	})
	for _, limit := range []int64{0, 100} {
		e := start(t, Config{Membership: members(addr), Routes: []Route{{BodyBytes: limit}}})
		head := "POST %s?user=a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
		c := e.send(fmt.Sprintf(head, "/wanted"))
		if answer := c.head(); answer.StatusCode != http.StatusContinue {
			t.Fatalf("limit %d: %s", limit, answer.Status)
		}
		say(c, "hello")
		if answer, body := c.whole(); answer.StatusCode != http.StatusOK || body != "hello" {
			t.Errorf("limit %d: %s %q", limit, answer.Status, body)
		}
		c = e.send(fmt.Sprintf(head, "/refused"))
		if answer := c.head(); answer.StatusCode != http.StatusForbidden || !answer.Close {
			t.Errorf("limit %d: %s, close %v; want a 403 and the end", limit, answer.Status, answer.Close)
		}
	}
}

func receive(t *testing.T, ch <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(patience):
		t.Fatalf("not within %v: %s", patience, what)
	}
}

// A client that leaves takes its request with it, whatever it waits for.
func TestCancellation(t *testing.T) {
	began, ended := make(chan struct{}, 1), make(chan struct{}, 1)
	e := start(t, Config{Membership: members(serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/answering" {
			_ = http.NewResponseController(w).Flush()
		}
		began <- struct{}{}
		switch r.URL.Path {
		case "/reading":
			_, _ = io.Copy(io.Discard, r.Body)
		default:
			<-r.Context().Done()
		}
		ended <- struct{}{}
	}))})
	for proto, b := range e.browsers() {
		for _, path := range []string{"/waiting", "/answering", "/reading"} {
			t.Run(proto+path, func(t *testing.T) {
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				body, up := io.Pipe()
				defer up.Close()
				r, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url+path+"?user=a", nil)
				if err != nil {
					t.Fatal(err)
				}
				if path == "/reading" {
					r.Body, r.ContentLength = body, -1
				}
				done := make(chan error, 1)
				go func() {
					answer, err := b.Do(r)
					if err == nil {
						_, err = io.ReadAll(answer.Body)
						answer.Body.Close()
					}
					done <- err
				}()
				receive(t, began, "the backend has the request")
				leave()
				receive(t, ended, "the backend notices that the client has left")
				_ = up.Close() // what package net/http reads a body with does not leave before its client has ended it
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Errorf("the client saw %v", err)
				}
			})
		}
	}
}

// An answer that comes before the body has been read reaches a client, whether it goes on to send or not. Then the connection ends, and nothing that
// follows is taken for a request.
func TestAnswerBeforeTheBody(t *testing.T) {
	e := start(t, Config{Membership: members(listenBackend(t, func(conn net.Conn, br *bufio.Reader, _ *http.Request) {
		say(conn, "HTTP/1.1 413 Too Much\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n")
		_, _ = io.Copy(io.Discard, br)
	}))}, func(e *Edge) { e.restTimeout = 50 * time.Millisecond })
	for _, more := range []string{"Content-Length: 100\r\n\r\nsome", "Transfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n",
		"Transfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n64\r\nGET /?user=a HTTP/1.1\r\nHost: x\r\n\r\n"} {
		c := e.send("POST /?user=a HTTP/1.1\r\nHost: x\r\n" + more)
		if answer, body := c.whole(); answer.StatusCode != http.StatusRequestEntityTooLarge || body != "no\n" || !answer.Close {
			t.Errorf("%q: %s %q, close %v", more, answer.Status, body, answer.Close)
		}
		c.ended()
	}
	e.nothingLeft(func() { // net/http sleeps for half a second over some of it
		c := e.dial()
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			_, _ = fmt.Fprintf(c, "POST /?user=a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", 64<<20)
			_, _ = io.CopyN(c, neverEnding{}, 64<<20)
		}()
		if answer, body := c.whole(); answer.StatusCode != http.StatusRequestEntityTooLarge || body != "no\n" {
			t.Errorf("while sending: %s %q", answer.Status, body)
		}
		_ = c.Close()
		<-sent
	})
}

type neverEnding struct{}

func (neverEnding) Read(p []byte) (int, error) { return len(p), nil }

// Connections to backends are used again, by whoever comes.
func TestKeepAliveToBackends(t *testing.T) {
	var opened atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	e := start(t, Config{Membership: members(s.Listener.Addr().String())})
	for i := range 50 {
		body := fmt.Sprint("body ", i)
		got, text := e.send(fmt.Sprintf("POST /?user=u%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", i, len(body), body)).whole()
		if got.StatusCode != http.StatusOK || text != body {
			t.Fatalf("%s %q", got.Status, text)
		}
	}
	if n := opened.Load(); n > 2 { // a connection is given back a moment after its answer has ended
		t.Errorf("%d connections for 50 requests, one after the other", n)
	}
}

// Members by IPv6 and behind a socket of the file system take plain HTTP and sessions, also side by side.
func TestMembersByOtherNetworks(t *testing.T) {
	handler := func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !wantsWebSocket(r) {
				_, _ = io.WriteString(w, name+" "+r.Host)
				return
			}
			conn, buffered, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			echo(name)(conn, buffered.Reader, r)
		})
	}
	path := filepath.Join(t.TempDir(), "b0.sock")
	addrs := []string{"unix:" + path}
	for i, at := range [][2]string{{"unix", path}, {"tcp", "[::1]:0"}} {
		ln, err := net.Listen(at[0], at[1])
		if err != nil && i == 1 {
			t.Logf("without IPv6: %v", err)
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewUnstartedServer(handler(fmt.Sprint("b", i)))
		_ = s.Listener.Close()
		s.Listener = ln
		s.Start()
		t.Cleanup(s.Close)
		if i == 1 {
			addrs = append(addrs, ln.Addr().String())
		}
	}
	e := start(t, Config{Membership: members(addrs...)})
	for i := range addrs {
		id := fmt.Sprint("b", i)
		user := e.ownedBy(id)
		for range 2 {
			if got, body := e.send(get("/?user=" + user)).whole(); got.StatusCode != http.StatusOK || body != id+" edge.test" {
				t.Errorf("%s: %s %q", id, got.Status, body)
			}
		}
		if _, body := e.send("GET /?user=" + user + " HTTP/1.0\r\n\r\n").whole(); body != id+" localhost" {
			t.Errorf("%s, asked without a Host: %q", id, body)
		}
		c := e.send(upgradeTo("/?user=" + user))
		if got := c.head(); got.StatusCode != http.StatusSwitchingProtocols || c.line() != id+"/"+user {
			t.Fatalf("%s: %s", id, got.Status)
		}
		sent := bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // enough to be spliced, where that can be
		go func() { _, _ = c.Write(sent) }()
		received := make([]byte, len(sent))
		if _, err := io.ReadFull(c.br, received); err != nil || !bytes.Equal(received, sent) {
			t.Errorf("%s: the echo of 1 MiB differs, %v", id, err)
		}
		if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		c.ended()
	}
}
