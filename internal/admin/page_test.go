package admin_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/selvedge/selvedge/internal/admin"
	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/testkit"
)

// source is a process with one service of two members.
type source struct {
	registry  *discovery.Memory
	view      *discovery.View
	following atomic.Int64
	busy      atomic.Bool  // every picture has other figures of all members, and closures
	pictures  atomic.Int64 // made
	closures  *admin.Journal[admin.Closure]
	changes   *admin.Changes
}

func newSource(t *testing.T) *source {
	registry := discovery.NewMemory()
	registry.Put("chat", discovery.Member{ID: "b1", Addr: "127.0.0.1:1", Weight: 1})
	registry.Put("chat", discovery.Member{ID: "b2", Addr: "127.0.0.1:2", Weight: 1})
	s := &source{registry: registry, view: discovery.NewView("chat", registry, nil), closures: admin.NewJournal[admin.Closure](64)}
	s.changes = admin.NewChanges(s.view, nil)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.view.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	<-s.view.Ready()
	return s
}

func (s *source) Services() []string { return []string{"chat"} }

func (s *source) Follow(ctx context.Context, _ string) {
	s.following.Add(1)
	context.AfterFunc(ctx, func() { s.following.Add(-1) })
}

func (s *source) Picture(service string) (*admin.Picture, bool) {
	figures := make(map[string]admin.Figures)
	if n := s.pictures.Add(1); s.busy.Load() {
		for range 100 {
			s.closures.Add(admin.Closure{Member: "b1", Reason: "client", By: "backend", User: strings.Repeat("u", 256)})
		}
		for _, m := range s.view.Snapshot().Members {
			figures[m.ID] = admin.Figures{Told: true, Sessions: int(n) * 1_000_003}
		}
	}
	return &admin.Picture{
		Process: admin.Process{Role: "edge", Name: "e1"}, Snapshot: s.view.Snapshot(), Figures: figures,
		Changes: s.changes, Closures: s.closures,
	}, service == "chat"
}

// listen serves a page under a token; "" is none.
func listen(t *testing.T, s *source, token string) *httptest.Server {
	t.Helper()
	called := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"called":true}`) })
	server := httptest.NewServer(admin.Handler(admin.Config{
		Token: func() string { return token }, Show: prometheus.NewRegistry(), Page: s, RPC: called,
	}))
	t.Cleanup(server.Close)
	return server
}

// got is what a request was answered with; its body has been read and closed.
type got struct {
	StatusCode int
	Status     string
	Header     http.Header
}

func request(t *testing.T, method, url string, header http.Header) (got, string) {
	t.Helper()
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host, r.Header = header.Get("Host"), header
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return got{answer.StatusCode, answer.Status, answer.Header}, string(text)
}

// The files of the page are for anyone, hold no data, and load nothing from elsewhere; whatever tells or does something asks for the token.
func TestPageAsksForTheToken(t *testing.T) {
	server := listen(t, newSource(t), "s3cret")
	for _, file := range []string{"/", "/page.js", "/page.css", "/link.js", "/circle.js", "/table.js", "/user.js", "/words.js", "/icon.svg"} {
		answer, text := request(t, "GET", server.URL+file, http.Header{})
		if answer.StatusCode != http.StatusOK || text == "" {
			t.Errorf("%s: %s", file, answer.Status)
		}
		if policy := answer.Header.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'; script-src 'self';") ||
			strings.Contains(policy, "unsafe") || strings.Contains(policy, "http") || !strings.Contains(policy, "frame-ancestors 'none'") {
			t.Errorf("%s: Content-Security-Policy %q", file, policy)
		}
		if outside := regexp.MustCompile(`(?:https?:)?//[a-z0-9.-]+\.[a-z]+`).FindAllString(text, -1); len(outside) > 1 || len(outside) == 1 && outside[0] != "http://www.w3.org" {
			t.Errorf("%s names %q", file, outside)
		}
		if strings.Contains(text, "b1") && file == "/" || strings.Contains(text, "innerHTML") {
			t.Errorf("%s holds data, or makes markup of text", file)
		}
		again, _ := request(t, "GET", server.URL+file, http.Header{"If-None-Match": {answer.Header.Get("ETag")}})
		if again.StatusCode != http.StatusNotModified {
			t.Errorf("%s again: %s", file, again.Status)
		}
	}
	for _, ask := range []struct{ method, path string }{
		{"GET", "/page/events"}, {"GET", "/page/user?user=alice"}, {"GET", "/metrics"},
		{"POST", "/selvedge.push.v1.PushService/Push"}, {"POST", "/selvedge.push.v1.PushService/Disconnect"}, {"POST", "/selvedge.push.v1.RingService/Drain"},
	} {
		for _, token := range []string{"", "Bearer wrong"} {
			answer, _ := request(t, ask.method, server.URL+ask.path, http.Header{"Authorization": {token}})
			if answer.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s %s with %q: %s", ask.method, ask.path, token, answer.Status)
			}
		}
	}
	if answer, text := request(t, "POST", server.URL+"/selvedge.push.v1.RingService/Drain", http.Header{"Authorization": {"Bearer s3cret"}}); answer.StatusCode != http.StatusOK {
		t.Errorf("with the token: %s %s", answer.Status, text)
	}
}

// Without a token a page of somebody else can make a browser send requests here; they are turned away.
func TestPagesOfOthersAreTurnedAway(t *testing.T) {
	server := listen(t, newSource(t), "")
	own := server.Listener.Addr().String()
	for _, test := range []struct {
		name, method, path string
		header             http.Header
		status             int
	}{
		{"the page itself", "POST", "/selvedge.push.v1.RingService/Drain", http.Header{"Origin": {"http://" + own}, "Sec-Fetch-Site": {"same-origin"}}, 200},
		{"curl", "POST", "/selvedge.push.v1.RingService/Drain", http.Header{}, 200},
		{"by a name of this host's", "POST", "/selvedge.push.v1.RingService/Drain", http.Header{"Host": {"edge.internal:8081"}}, 200},
		{"another site", "POST", "/selvedge.push.v1.RingService/Drain", http.Header{"Origin": {"https://evil.example"}, "Sec-Fetch-Site": {"cross-site"}}, 403},
		{"an old browser at another site", "POST", "/selvedge.push.v1.RingService/Drain", http.Header{"Origin": {"https://evil.example"}}, 403},
		{"a name bound anew to this host", "POST", "/selvedge.push.v1.RingService/Drain",
			http.Header{"Host": {"evil.example:8081"}, "Origin": {"http://evil.example:8081"}, "Sec-Fetch-Site": {"same-origin"}}, 421},
		{"reading by such a name", "GET", "/page/user?user=alice", http.Header{"Host": {"evil.example:8081"}}, 421},
		{"reading", "GET", "/page/user?user=alice", http.Header{"Host": {"localhost:8081"}}, 200},
	} {
		if answer, text := request(t, test.method, server.URL+test.path, test.header); answer.StatusCode != test.status {
			t.Errorf("%s: %s %s; want %d", test.name, answer.Status, text, test.status)
		}
	}
}

func TestUserIsFound(t *testing.T) {
	s := newSource(t)
	server := listen(t, s, "")
	answer, text := request(t, "GET", server.URL+"/page/user?service=chat&user=alice", http.Header{"Host": {"127.0.0.1"}})
	var at struct {
		User, Hash, Digest string
		Successors         []string
	}
	if err := json.Unmarshal([]byte(text), &at); err != nil {
		t.Fatalf("%s: %s", answer.Status, text)
	}
	ring := s.view.Snapshot().Ring
	if at.User != "alice" || len(at.Hash) != 16 || at.Digest != ring.Digest() || len(at.Successors) != 2 || at.Successors[0] != ring.Owner("alice") {
		t.Errorf("found %+v", at)
	}
	for path, status := range map[string]int{"/page/user?user=": 400, "/page/user?service=game&user=alice": 404, "/page/events?service=game": 404} {
		if answer, _ := request(t, "GET", server.URL+path, http.Header{"Host": {"127.0.0.1"}}); answer.StatusCode != status {
			t.Errorf("%s: %s, want %d", path, answer.Status, status)
		}
	}
}

// events reads a stream until it has seen n of them, or ctx ends; it returns the bytes of each.
func events(t *testing.T, ctx context.Context, url string, n int) (sizes []int) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/page/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if kind := answer.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Fatalf("%s %s", answer.Status, kind)
	}
	lines := bufio.NewReader(answer.Body)
	for len(sizes) < n {
		line, err := lines.ReadString('\n')
		if err != nil {
			return sizes
		}
		if strings.HasPrefix(line, "data: ") {
			sizes = append(sizes, len(line))
		}
	}
	return sizes
}

// A page is told once a second, what is asked for it ends with it, and however much happens, it is told but so much.
func TestStreamIsBounded(t *testing.T) {
	s := newSource(t)
	server := listen(t, s, "")
	began := time.Now()
	if sizes := events(t, context.Background(), server.URL, 3); len(sizes) != 3 || time.Since(began) < 1900*time.Millisecond {
		t.Errorf("%d events in %v; want one a second", len(sizes), time.Since(began))
	}
	testkit.Eventually(t, 5*time.Second, func() bool { return s.following.Load() == 0 }, "following to end with the page")

	for i := range 500 {
		s.registry.Put("chat", discovery.Member{ID: fmt.Sprintf("member-%d", i), Addr: "127.0.0.1:1", Weight: 1})
	}
	testkit.Eventually(t, 10*time.Second, func() bool { return s.view.Snapshot().Ring.Len() == 502 }, "all members to be known")
	s.busy.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), 6*time.Second)
	defer cancel()
	began = time.Now()
	total, sizes := 0, events(t, ctx, server.URL, 1000)
	for _, n := range sizes {
		total += n
	}
	// What is told first is all there is, whatever that takes; the next comes when it has been paid for.
	if len(sizes) == 0 {
		t.Fatal("nothing was told")
	}
	if rate := float64(total-sizes[0]) / time.Since(began).Seconds(); rate > 10_000 {
		t.Errorf("%d events, of %v bytes, in %v: %.0f a second beyond the first", len(sizes), sizes, time.Since(began), rate)
	}
}

func TestPagesAtOnce(t *testing.T) {
	s := newSource(t)
	server := listen(t, s, "")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for range 32 {
		r, _ := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/page/events", nil)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = answer.Body.Close() })
	}
	answer, _ := request(t, "GET", server.URL+"/page/events", http.Header{"Host": {"127.0.0.1"}})
	if answer.StatusCode != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") == "" {
		t.Errorf("one page more: %s", answer.Status)
	}
	cancel()
	testkit.Eventually(t, 5*time.Second, func() bool { return s.following.Load() == 0 }, "places to come back")
}
