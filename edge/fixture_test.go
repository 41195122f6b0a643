package edge

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(bothPaths{m}) }

// slowPath is what [Edge.slow] is in the tests.
var slowPath bool

// bothPaths runs all tests twice: upgrades begin on the reactor, then all in net/http.
type bothPaths struct{ m *testing.M }

func (b bothPaths) Run() int {
	flag.Parse()
	paths := []bool{false, true}
	if flag.Lookup("test.fuzz").Value.String() != "" {
		paths = paths[:1] // a fuzz test runs over none, for as long as it was told
	}
	for _, slowPath = range paths {
		if code := b.m.Run(); code != 0 {
			fmt.Printf("with slowPath = %v\n", slowPath)
			return code
		}
	}
	return 0
}

const patience = 10 * time.Second

// running is an edge that serves.
type running struct {
	*Edge
	t    *testing.T
	stop context.CancelFunc
	done chan error
	port int // the listener that clients connect to, by its place in Config.Listen

	clients *clients
}

// at is r by another listener.
func (r *running) at(port int) *running {
	other := *r
	other.port = port
	return &other
}

// start runs an edge on free ports and waits until it knows its members, if it is to have any. What change does is done before it runs.
func start(t *testing.T, cfg Config, change ...func(*Edge)) *running {
	t.Helper()
	if cfg.Listen == nil {
		cfg.Listen = []Listener{{Addr: "127.0.0.1:0"}}
	}
	if cfg.Admin.Addr == "" {
		cfg.Admin.Addr = "127.0.0.1:0"
	}
	if cfg.DrainDelay == 0 {
		cfg.DrainDelay = -1
	}
	if cfg.DrainTimeout == 0 {
		cfg.DrainTimeout = -1
	}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	e.slow = slowPath
	for _, f := range change {
		f(e)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Edge: e, t: t, stop: cancel, done: make(chan error, 1), clients: new(clients)}
	go func() { r.done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := r.wait(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	select {
	case <-e.Ready():
	case err := <-r.done:
		r.done <- err
		t.Fatalf("Run: %v", err)
	}
	for _, s := range e.followed() {
		<-s.view.Ready()
	}
	return r
}

func (r *running) wait() error {
	select {
	case err := <-r.done:
		r.done <- err // for the next who asks
		return err
	case <-time.After(patience):
		return errors.New("still running")
	}
}

func (r *running) snapshot() *discovery.Snapshot { return r.service(DefaultService).view.Snapshot() }

// await waits until what the edge knows of the default service is as f wants it.
func (r *running) await(f func(*discovery.Snapshot) bool) {
	r.t.Helper()
	testkit.Eventually(r.t, patience, func() bool { return f(r.snapshot()) }, "the edge knows the members")
}

// ownedBy returns a user of member id.
func (r *running) ownedBy(id string) string {
	for i := range 10_000 {
		if user := fmt.Sprint("user", i); r.snapshot().Ring.Owner(user) == id {
			return user
		}
	}
	r.t.Fatalf("%s owns nobody", id)
	return ""
}

// members makes a registry of backends: id b0, b1, ... in the order given.
func members(addrs ...string) Membership {
	m := discovery.NewMemory()
	for i, addr := range addrs {
		m.Put(DefaultService, discovery.Member{ID: fmt.Sprintf("b%d", i), Addr: addr, Weight: 1})
	}
	return Membership{Memory: m}
}

// backendFunc answers one request of the edge on a raw connection, which is closed when it returns.
type backendFunc func(conn net.Conn, br *bufio.Reader, r *http.Request)

// listenBackend is a backend of raw sockets. All its connections have ended when the test is over.
func listenBackend(t *testing.T, answer backendFunc) string {
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
				defer func() {
					mu.Lock()
					delete(open, conn)
					mu.Unlock()
					_ = conn.Close()
				}()
				br := bufio.NewReader(conn)
				if r, err := http.ReadRequest(br); err == nil {
					answer(conn, br, r)
				}
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

// deadAddr is an address that refuses connections.
func deadAddr(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func say(conn net.Conn, format string, args ...any) { _, _ = fmt.Fprintf(conn, format, args...) }

// switched is a correct 101 to r, with further fields ("Name: value\r\n").
func switched(r *http.Request, fields string) string {
	return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		acceptFor(r.Header.Get("Sec-WebSocket-Key")) + "\r\n" + fields + "\r\n"
}

// echo switches, says its name and what user it was told, and sends back what it gets.
func echo(name string) backendFunc {
	return func(conn net.Conn, br *bufio.Reader, r *http.Request) {
		say(conn, "%s%s/%s\n", switched(r, ""), name, r.Header.Get("X-Selvedge-User"))
		_, _ = io.Copy(conn, br)
	}
}

// answering answers every request with text, and closes.
func answering(text string) backendFunc {
	return func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
		say(conn, "%s", strings.ReplaceAll(text, "\n", "\r\n"))
	}
}

const sampleKey = "dGhlIHNhbXBsZSBub25jZQ=="

// upgradeTo is an upgrade request as a client writes it, with further fields.
func upgradeTo(target string, fields ...string) string {
	return "GET " + target + " HTTP/1.1\r\nHost: edge.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + sampleKey + "\r\n" + strings.Join(append(fields, ""), "\r\n") + "\r\n"
}

// client is one raw connection to an edge.
type client struct {
	net.Conn
	t  *testing.T
	br *bufio.Reader
}

func (r *running) dial() *client {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.addrs[r.port].String())
	if err != nil {
		r.t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	return r.client(conn)
}

func (r *running) client(conn net.Conn) *client {
	r.clients.mu.Lock()
	defer r.clients.mu.Unlock()
	r.clients.open = append(r.clients.open, conn)
	return &client{conn, r.t, bufio.NewReader(conn)}
}

// send sends text on a new connection.
func (r *running) send(text string) *client {
	r.t.Helper()
	c := r.dial()
	if _, err := io.WriteString(c, text); err != nil {
		r.t.Fatal(err)
	}
	return c
}

// answer is what a client got. Its body needs no closing: the test closes the connection.
type answer struct{ *http.Response }

// head reads the head of an answer.
func (c *client) head() answer {
	c.t.Helper()
	got, err := http.ReadResponse(c.br, nil) //nolint:bodyclose // see answer
	if err != nil {
		c.t.Fatalf("no answer: %v", err)
	}
	return answer{got}
}

// line reads a line of a tunnel.
func (c *client) line() string {
	c.t.Helper()
	line, err := c.br.ReadString('\n')
	if err != nil {
		c.t.Fatalf("no line: %v, after %q", err, line)
	}
	return strings.TrimSuffix(line, "\n")
}

// ended fails unless the connection is at its end.
func (c *client) ended() {
	c.t.Helper()
	if b, err := io.ReadAll(c.br); err != nil || len(b) > 0 {
		c.t.Errorf("want the end of the connection, got %q, %v", b, err)
	}
}

// refused reads an answer of the edge's own, checks its form, and returns what it says.
func (c *client) refused(status int) string {
	c.t.Helper()
	answer := c.head()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	var says struct {
		Error     string `json:"error"`
		RequestID string `json:"request_id"`
	}
	if answer.StatusCode != status {
		c.t.Fatalf("answered %s %s, want %d", answer.Status, body, status)
	}
	if err := json.Unmarshal(body, &says); err != nil || says.Error == "" || says.RequestID == "" {
		c.t.Errorf("body %q, want an error and a request id in JSON", body)
	}
	if ct := answer.Header.Get("Content-Type"); ct != "application/json" {
		c.t.Errorf("Content-Type %q", ct)
	}
	if challenge := answer.Header.Get("WWW-Authenticate"); (challenge != "") != (status == http.StatusUnauthorized) {
		c.t.Errorf("WWW-Authenticate %q in a %d", challenge, status)
	}
	if after := answer.Header.Get("Retry-After"); (after != "") != (status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests) {
		c.t.Errorf("Retry-After %q in a %d", after, status)
	}
	return says.Error
}

// descriptors counts this process's open descriptors, but for pipes: the relay keeps some to lend.
func descriptors(t *testing.T) int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("counts descriptors in /proc")
	}
	n := 0
	for _, fd := range list {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && !strings.HasPrefix(to, "pipe:") {
			n++
		}
	}
	return n
}

// nothingLeft fails unless descriptors, goroutines and places come back to what they are now, by the time do and its clients are gone.
func (r *running) nothingLeft(do func()) {
	r.t.Helper()
	fds, goroutines := descriptors(r.t), runtime.NumGoroutine()
	do()
	testkit.Eventually(r.t, patience, func() error {
		r.sessions.mu.Lock()
		held := r.sessions.held + len(r.sessions.claims) + len(r.sessions.users) + len(r.sessions.networks)
		r.sessions.mu.Unlock()
		if f, g := descriptors(r.t), runtime.NumGoroutine(); f > fds || g > goroutines || held != 0 || r.Sessions() != 0 {
			return fmt.Errorf("%d descriptors, %d goroutines, %d places, %d sessions; at first %d and %d", f, g, held, r.Sessions(), fds, goroutines)
		}
		return nil
	}, "nothing is left")
}

// metric reads one line of /metrics: name with labels, as it is written there.
func (r *running) metric(name string) string {
	r.t.Helper()
	_, body := r.admin("GET", "/metrics", "")
	for line := range strings.Lines(body) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return "absent"
}

func (r *running) admin(method, path, token string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequest(method, "http://"+r.AdminAddr().String()+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Close = true
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

// clients are the connections to an edge that a test has made.
type clients struct {
	mu   sync.Mutex
	open []net.Conn
}

// hangUp closes the connections of all clients.
func (r *running) hangUp() {
	r.clients.mu.Lock()
	defer r.clients.mu.Unlock()
	for _, c := range r.clients.open {
		_ = c.Close()
	}
}
