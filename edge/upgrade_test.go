package edge

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/selvedge/selvedge/internal/testkit"
)

func TestUpgradeEcho(t *testing.T) {
	for _, engine := range []string{"auto", "copy", "splice"} {
		t.Run(engine, func(t *testing.T) {
			addr := listenBackend(t, echo("b0"))
			e := start(t, Config{Membership: members(addr), Engine: engine})
			e.nothingLeft(func() {
				c := e.send(upgradeTo("/ws?user=alice"))
				if got := c.head(); got.StatusCode != http.StatusSwitchingProtocols || got.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
					t.Fatalf("answered %s %v", got.Status, got.Header)
				}
				if got := c.line(); got != "b0/alice" {
					t.Errorf("the backend said %q", got)
				}
				for i := range 10 {
					text := strings.Repeat(fmt.Sprint(i), 1000*i+1)
					if _, err := fmt.Fprintln(c, text); err != nil {
						t.Fatal(err)
					}
					if got := c.line(); got != text {
						t.Fatalf("%d bytes came back, want %d", len(got), len(text))
					}
				}
				if e.Sessions() != 1 {
					t.Errorf("%d sessions, want 1", e.Sessions())
				}
				if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
					t.Fatal(err)
				}
				c.ended()
				_ = c.Close()
			})
			if got := e.metric(`selvedge_edge_upgrades_total{code="101",service="default"}`); got != "1" {
				t.Errorf("upgrades: %s", got)
			}
			if got := e.metric(`selvedge_edge_session_closes_total{reason="client_closed",service="default"}`); got != "1" {
				t.Errorf("closes: %s", got)
			}
		})
	}
}

// A WebSocket library at both ends, so that the heads are not only to our own taste.
func TestUpgradeLibrary(t *testing.T) {
	addr := listenWS(t)
	e := start(t, Config{Membership: members(addr)})
	d := ws.Dialer{Protocols: []string{"chat"}}
	conn, _, hs, err := d.Dial(context.Background(), "ws://"+e.Addr().String()+"/ws?user=alice")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if hs.Protocol != "chat" {
		t.Errorf("subprotocol %q", hs.Protocol)
	}
	if err := wsutil.WriteClientText(conn, []byte("hi")); err != nil {
		t.Fatal(err)
	}
	if got, err := wsutil.ReadServerText(conn); err != nil || string(got) != "hi" {
		t.Errorf("got %q, %v", got, err)
	}
}

func listenWS(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = ln.Close(); <-done })
	go func() {
		defer close(done)
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		u := ws.Upgrader{Protocol: func(p []byte) bool { return string(p) == "chat" }}
		if _, err := u.Upgrade(conn); err != nil {
			t.Error(err)
			return
		}
		if text, err := wsutil.ReadClientText(conn); err == nil {
			_ = wsutil.WriteServerText(conn, text)
		}
		_, _ = io.Copy(io.Discard, conn)
	}()
	return ln.Addr().String()
}

// What either side sends in the same packet as its head reaches the other, however slow the backend's answer, and however much.
func TestFirstFrameInTheSamePacket(t *testing.T) {
	for _, size := range []int{1, 100, 3000, 4096, 8192, 100_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			early := bytes.Repeat([]byte("e"), size)
			seen := make(chan struct{})
			addr := listenBackend(t, func(conn net.Conn, br *bufio.Reader, r *http.Request) {
				<-seen // the client has sent all it can: net/http reads one byte of it behind the handler's back
				say(conn, "%s%s", switched(r, ""), early)
				_, _ = io.Copy(conn, br)
			})
			e := start(t, Config{Membership: members(addr)})
			c := e.dial()
			go func() {
				_, _ = c.Write([]byte(upgradeTo("/ws?user=alice") + string(early)))
				close(seen)
			}()
			if got := c.head().StatusCode; got != 101 {
				t.Fatalf("answered %d", got)
			}
			got := make([]byte, 2*size)
			if _, err := io.ReadFull(c.br, got); err != nil || string(got) != string(early)+string(early) {
				t.Errorf("the early bytes did not come back: %v", err)
			}
		})
	}
}

func TestThe101IsTheBackendsOwn(t *testing.T) {
	heads := make(chan http.Header, 1)
	addr := listenBackend(t, func(conn net.Conn, _ *bufio.Reader, r *http.Request) {
		heads <- r.Header
		say(conn, "%s", switched(r, "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nSec-WebSocket-Protocol: chat\r\nX-Other: y\r\n"+
			"Sec-WebSocket-Extensions: permessage-deflate\r\nKeep-Alive: timeout=5\r\n"))
	})
	e := start(t, Config{Membership: members(addr)})
	c := e.send(upgradeTo("/ws?user=alice", "Sec-WebSocket-Protocol: chat", "Cookie: c=3", "Keep-Alive: x", "X-Mine: 1"))
	raw, err := io.ReadAll(c.br)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"HTTP/1.1 101 Switching Protocols\r\n", "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n", "Sec-WebSocket-Protocol: chat\r\n",
		"Sec-WebSocket-Extensions: permessage-deflate\r\n", "X-Other: y\r\n", "Upgrade: websocket\r\n", "Connection: Upgrade\r\n"} {
		if !strings.Contains(string(raw), want) {
			t.Errorf("the 101 lacks %q: %q", want, raw)
		}
	}
	if strings.Contains(string(raw), "Keep-Alive") {
		t.Errorf("a hop-by-hop field got through: %q", raw)
	}
	h := <-heads
	if h.Get("Sec-WebSocket-Protocol") != "chat" || h.Get("Cookie") != "c=3" || h.Get("X-Mine") != "1" || h.Get("Keep-Alive") != "" {
		t.Errorf("the backend saw %v", h)
	}
}

func TestBadRequests(t *testing.T) {
	addr := listenBackend(t, echo("b0"))
	e := start(t, Config{Membership: members(addr), HeaderBytes: 4096, Routes: []Route{{Path: "/ws"}}})
	long := strings.Repeat("x", 300)
	for name, c := range map[string]struct {
		request string
		status  int
		says    string
	}{
		"no user":            {upgradeTo("/ws"), 400, "not given"},
		"empty user":         {upgradeTo("/ws?user="), 400, "empty"},
		"long user":          {upgradeTo("/ws?user=" + long), 400, "300 bytes"},
		"control character":  {upgradeTo("/ws?user=a%07"), 400, "control"},
		"not UTF-8":          {upgradeTo("/ws?user=%ff"), 400, "UTF-8"},
		"two users":          {upgradeTo("/ws?user=a&user=b"), 400, "more than once"},
		"bad escape":         {upgradeTo("/ws?user=%zz"), 400, "percent"},
		"no route":           {upgradeTo("/other?user=a"), 404, "route"},
		"climbs":             {upgradeTo("/ws/../..?user=a"), 400, "path"},
		"body by length":     {upgradeTo("/ws?user=a", "Content-Length: 5") + "hello", 400, "body"},
		"body by chunks":     {upgradeTo("/ws?user=a", "Transfer-Encoding: chunked") + "0\r\n\r\n", 400, "body"},
		"post":               {strings.Replace(upgradeTo("/ws?user=a"), "GET", "POST", 1), 400, "GET"},
		"HTTP/1.0":           {strings.Replace(upgradeTo("/ws?user=a"), "HTTP/1.1", "HTTP/1.0", 1), 400, "HTTP/1.1"},
		"no key":             {strings.Replace(upgradeTo("/ws?user=a"), "Sec-WebSocket-Key", "X-Key", 1), 400, "Sec-WebSocket-Key"},
		"two keys":           {upgradeTo("/ws?user=a", "Sec-WebSocket-Key: "+sampleKey), 400, "Sec-WebSocket-Key"},
		"short key":          {strings.Replace(upgradeTo("/ws?user=a"), sampleKey, "c2hvcnQ=", 1), 400, "16 bytes"},
		"two versions":       {upgradeTo("/ws?user=a", "Sec-WebSocket-Version: 12"), 400, "Version"},
		"big head":           {upgradeTo("/ws?user=a", "X-Big: "+strings.Repeat("x", 4000)), 431, "head"},
		"huge head":          {upgradeTo("/ws?user=a", "X-Big: "+strings.Repeat("x", 20_000)), 431, "head"},
		"many fields":        {upgradeTo("/ws?user=a", strings.TrimSuffix(strings.Repeat("X-Y: 1\r\n", 700), "\r\n")), 431, "head"},
		"no HTTP":            {"hello\r\n\r\n", 400, "malformed"},
		"no host":            {"GET /ws HTTP/1.1\r\n\r\n", 400, "malformed"},
		"space before colon": {upgradeTo("/ws?user=a", "X-Odd : 1"), 400, "malformed"},
		"unknown encoding":   {upgradeTo("/ws?user=a", "Transfer-Encoding: gzip"), 501, "malformed"},
		"connect":            {"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", 400, "target"},
		"odd host":           {strings.Replace(upgradeTo("/ws?user=a"), "edge.test", "a,b", 1), 400, "Host"},
		"host with space":    {strings.Replace(upgradeTo("/ws?user=a"), "GET /", "GET http://[fe80::1%25a%20b]/", 1), 400, "Host"},
		"other scheme":       {strings.Replace(upgradeTo("/ws?user=a"), "GET /", "GET ftp://edge.test/", 1), 400, "target"},
		"star":               {"OPTIONS * HTTP/1.1\r\nHost: edge.test\r\n\r\n", 400, "path"},
	} {
		t.Run(name, func(t *testing.T) {
			e.t = t
			e.nothingLeft(func() {
				client := e.send(c.request)
				if says := client.refused(c.status); !strings.Contains(says, c.says) {
					t.Errorf("said %q, want it to say %q", says, c.says)
				}
				client.ended()
				_ = client.Close()
			})
		})
	}
	if got := e.metric(`selvedge_edge_refusals_total{reason="head_too_big"}`); got != "3" {
		t.Errorf("heads refused: %s, want 3", got)
	}
	if got := e.metric(`selvedge_edge_refusals_total{reason="bad_user"}`); got != "7" {
		t.Errorf("users refused: %s, want 7", got)
	}
}

// What backends get wrong, and what clients see of it.
func TestBadAnswers(t *testing.T) {
	const accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
	hang := func(br *bufio.Reader) { _, _ = br.ReadByte() } // until the edge hangs up
	for name, c := range map[string]struct {
		answer backendFunc
		status int
		says   string
	}{
		"200":             {answering("HTTP/1.1 200 OK\nContent-Length: 2\n\nok"), 502, "neither"},
		"wrong accept":    {answering("HTTP/1.1 101 X\nUpgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Accept: AAAA\n\n"), 502, "Accept"},
		"no accept":       {answering("HTTP/1.1 101 X\nUpgrade: websocket\nConnection: Upgrade\n\n"), 502, "Accept"},
		"no upgrade":      {answering("HTTP/1.1 101 X\nConnection: Upgrade\nSec-WebSocket-Accept: " + accept + "\n\n"), 502, "another protocol"},
		"other upgrade":   {answering("HTTP/1.1 101 X\nConnection: Upgrade\nUpgrade: h2c\nSec-WebSocket-Accept: " + accept + "\n\n"), 502, "another protocol"},
		"no connection":   {answering("HTTP/1.1 101 X\nUpgrade: websocket\nSec-WebSocket-Accept: " + accept + "\n\n"), 502, "Connection"},
		"control in head": {answering("HTTP/1.1 101 X\nUpgrade: websocket\nConnection: Upgrade\nX-A: a\x01\nSec-WebSocket-Accept: " + accept + "\n\n"), 502, ""},
		"HTTP/1.0":        {answering("HTTP/1.0 101 X\nUpgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Accept: " + accept + "\n\n"), 502, "HTTP/1.0"},
		"no HTTP":         {answering("SSH-2.0-OpenSSH_9.2\n"), 502, "no HTTP"},
		"half a head":     {answering("HTTP/1.1 101 Swit"), 502, "no HTTP"},
		"endless head":    {answering("HTTP/1.1 101 X\nX-Big: " + strings.Repeat("x", 2*backendHeadBytes)), 502, "no HTTP"},
		"endless interim": {answering(strings.Repeat("HTTP/1.1 100 Continue\n\n", 10_000)), 502, "no HTTP"},
		"nothing":         {func(_ net.Conn, br *bufio.Reader, _ *http.Request) { hang(br) }, 504, "in time"},
		"half, then nothing": {func(conn net.Conn, br *bufio.Reader, _ *http.Request) {
			say(conn, "HTTP/1.1 101")
			hang(br)
		}, 504, "in time"},
		"hangs up": {func(net.Conn, *bufio.Reader, *http.Request) {}, 503, "could take this"},
		"resets": {func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
			_ = conn.(*net.TCPConn).SetLinger(0)
		}, 503, "could take this"},
	} {
		t.Run(name, func(t *testing.T) {
			e := start(t, Config{Membership: members(listenBackend(t, c.answer)),
				Services: map[string]ServiceConfig{DefaultService: {ResponseTimeout: 200 * time.Millisecond}}})
			client := e.send(upgradeTo("/ws?user=alice"))
			if says := client.refused(c.status); !strings.Contains(says, c.says) {
				t.Errorf("said %q, want it to say %q", says, c.says)
			}
			client.ended()
			if e.Sessions() != 0 {
				t.Errorf("%d sessions", e.Sessions())
			}
			if got := e.metric(fmt.Sprintf(`selvedge_edge_upgrades_total{code="%d",service="default"}`, c.status)); got != "1" {
				t.Errorf("upgrades with %d: %s, want 1", c.status, got)
			}
		})
	}
}

// An answer before the 101 that is none yet is skipped.
func TestInterimAnswer(t *testing.T) {
	addr := listenBackend(t, func(conn net.Conn, _ *bufio.Reader, r *http.Request) {
		say(conn, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n%shi\n", switched(r, ""))
	})
	c := start(t, Config{Membership: members(addr)}).send(upgradeTo("/ws?user=a"))
	if c.head().StatusCode != http.StatusSwitchingProtocols || c.line() != "hi" {
		t.Error("no session")
	}
}

func TestRefusalPassedOn(t *testing.T) {
	for name, c := range map[string]struct {
		answer, body string
		status       int
	}{
		"403":         {"HTTP/1.1 403 Forbidden\nX-Why: banned\nContent-Length: 6\nKeep-Alive: 1\n\nbanned", "banned", 403},
		"chunked":     {"HTTP/1.1 403 Forbidden\nX-Why: banned\nTransfer-Encoding: chunked\n\n3\nban\n3\nned\n0\n\n", "banned", 403},
		"to the end":  {"HTTP/1.1 403 Forbidden\nX-Why: banned\n\nbanned", "banned", 403},
		"redirect":    {"HTTP/1.1 302 Found\nX-Why: banned\nLocation: /login\nContent-Length: 0\n\n", "", 302},
		"426":         {"HTTP/1.1 426 Upgrade Required\nX-Why: banned\nSec-WebSocket-Version: 13\nContent-Length: 0\n\n", "", 426},
		"500":         {"HTTP/1.1 500 Oops\nX-Why: banned\nContent-Length: 1\n\nx", "x", 500},
		"503 of last": {"HTTP/1.1 503 Full\nX-Why: banned\nContent-Length: 4\n\nfull", "full", 503},
	} {
		t.Run(name, func(t *testing.T) {
			e := start(t, Config{Membership: members(listenBackend(t, answering(c.answer)))})
			client := e.send(upgradeTo("/ws?user=alice"))
			answer := client.head()
			body, err := io.ReadAll(answer.Body)
			if err != nil || answer.StatusCode != c.status || string(body) != c.body || answer.Header.Get("X-Why") != "banned" ||
				!answer.Close || answer.Header.Get("Keep-Alive") != "" {
				t.Errorf("got %s %v %q, %v", answer.Status, answer.Header, body, err)
			}
			client.ended()
			if got := e.metric(`selvedge_edge_refusals_total{reason="bad_answer"}`); got != "0" {
				t.Errorf("counted as the edge's own: %s", got)
			}
		})
	}
}

func TestRefusalTooBigBreaksOff(t *testing.T) {
	addr := listenBackend(t, answering("HTTP/1.1 403 Forbidden\nContent-Type: text/plain\n\n"+strings.Repeat("x", 2*refusalBytes)))
	c := start(t, Config{Membership: members(addr)}).send(upgradeTo("/ws?user=alice"))
	if _, err := io.ReadAll(c.head().Body); err == nil {
		t.Error("the client takes a cut body for a whole one")
	}
}

// What the client sends while a member is asked, and what the member sends right after its 101, reaches the other although nobody sends
// anything after it.
func TestFirstFrameMeanwhile(t *testing.T) {
	asked, sent := make(chan struct{}), make(chan struct{})
	addr := listenBackend(t, func(conn net.Conn, br *bufio.Reader, r *http.Request) {
		close(asked)
		<-sent
		say(conn, "%s", switched(r, ""))
		say(conn, "from the member\n")
		line, _ := br.ReadString('\n')
		say(conn, "%s", line)
		_, _ = io.Copy(io.Discard, conn)
	})
	e := start(t, Config{Membership: members(addr)})
	c := e.send(upgradeTo("/ws?user=alice"))
	<-asked
	say(c, "from the client\n")
	time.AfterFunc(50*time.Millisecond, func() { close(sent) }) // the edge has been told by then; if not, the test is easier and nothing is wrong
	if got := c.head().StatusCode; got != http.StatusSwitchingProtocols {
		t.Fatalf("answered %d", got)
	}
	for _, want := range []string{"from the member", "from the client"} {
		if got := c.line(); got != want {
			t.Errorf("got %q; want %q", got, want)
		}
	}
}

// A client that leaves while its backend thinks frees everything at once, long before the response timeout.
func TestClientLeavesBeforeTheAnswer(t *testing.T) {
	asked, left := make(chan struct{}), make(chan struct{})
	addr := listenBackend(t, func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
		close(asked)
		_, _ = conn.Read(make([]byte, 1))
		close(left)
	})
	e := start(t, Config{Membership: members(addr), Services: map[string]ServiceConfig{DefaultService: {ResponseTimeout: time.Hour}}})
	e.nothingLeft(func() {
		c := e.send(upgradeTo("/ws?user=alice"))
		<-asked
		_ = c.Close()
		select {
		case <-left:
		case <-time.After(patience):
			t.Fatal("the backend's connection is still open")
		}
	})
	if got := e.metric(`selvedge_edge_upgrades_total{code="499",service="default"}`); got != "1" {
		t.Errorf("left early: %s, want 1", got)
	}
}

func TestSessionLimit(t *testing.T) {
	e := start(t, Config{Membership: members(listenBackend(t, echo("b0"))), Sessions: 2})
	var open []*client
	for range 2 {
		c := e.send(upgradeTo("/ws?user=a"))
		if c.head().StatusCode != http.StatusSwitchingProtocols {
			t.Fatal("no session below the limit")
		}
		open = append(open, c)
	}
	testkit.Eventually(t, patience, func() bool { return e.Sessions() == 2 }, "both are sessions: the 101 is sent just before")
	if says := e.send(upgradeTo("/ws?user=a")).refused(503); !strings.Contains(says, "as many sessions") {
		t.Errorf("said %q", says)
	}
	_ = open[0].Close()
	testkit.Eventually(t, patience, func() bool { return e.Sessions() == 1 }, "the place is free again")
	if c := e.send(upgradeTo("/ws?user=a")); c.head().StatusCode != http.StatusSwitchingProtocols {
		t.Error("no session where there is a place")
	}
}

// An open session is four descriptors on this machine (two of them the edge's), and no goroutine of the edge.
func TestSessionsCostNoGoroutine(t *testing.T) {
	const n = 50
	e := start(t, Config{Membership: members(listenBackend(t, echo("b0")))}) // a goroutine for each connection
	last, same := 0, 0                                                       // what the edge's start and the test before have begun is to be over
	testkit.Eventually(t, patience, func() bool {
		if now := runtime.NumGoroutine(); now == last {
			same++
		} else {
			last, same = now, 0
		}
		return same >= 20
	}, "goroutines to come and go no more")
	fds, goroutines := descriptors(t), runtime.NumGoroutine()
	e.nothingLeft(func() {
		var open []*client
		for range n {
			c := e.send(upgradeTo("/ws?user=a"))
			c.head()
			c.line()
			open = append(open, c)
		}
		testkit.Eventually(t, patience, func() error {
			if f, g := descriptors(t)-fds, runtime.NumGoroutine()-goroutines; f != 4*n || g != n || e.Sessions() != n {
				return fmt.Errorf("%d descriptors, %d goroutines, %d sessions", f, g, e.Sessions())
			}
			return nil
		}, "sessions without goroutines")
		for _, c := range open {
			_ = c.Close()
		}
	})
}
