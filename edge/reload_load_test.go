package edge

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/discovery"
)

// Two hundred reloads, each of which changes routes, limits, trusted proxies and the certificate, while 2,000 sessions are open and
// requests come: no session closes, no request fails, and each change is there as soon as Reload has returned.
func TestReloadUnderLoad(t *testing.T) {
	sessions, reloads := 2000, 200
	if slowPath {
		sessions, reloads = 100, 20 // the same code, once a session is open
	}
	a, registry := newAuthority(t), discovery.NewMemory()
	plain := func(name string) string {
		return serve(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, name+" "+r.Header.Get("X-Forwarded-For"))
		})
	}
	held := listenBackend(t, echo("held"))
	registry.Put("held", discovery.Member{ID: "b0", Addr: held, Weight: 1})
	for _, name := range []string{"even", "odd"} {
		registry.Put(name, discovery.Member{ID: "b0", Addr: plain(name), Weight: 1})
	}
	configs := make([]Config, 2)
	for i := range configs {
		c := reloadable(registry)
		c.Listen = []Listener{{Addr: "127.0.0.1:0"}, secureListener(a.leaf([]string{"even", "odd"}[i] + ".test"))}
		// The service of the sessions is in every second config: without a route it is followed for their sake.
		c.Routes = []Route{{Path: "/", Key: "none", Service: "even"}, {Path: "/ws", Service: "held"}}
		c.HeaderBytes = 16 << 10
		if i == 1 {
			c.Routes = []Route{{Path: "/", Key: "none", Service: "odd"}}
			c.HeaderBytes = 2 << 10
			c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		}
		configs[i] = c
	}
	e := start(t, configs[0])

	open := make([]*client, sessions)
	for i := range open {
		open[i] = e.send(upgradeTo(fmt.Sprintf("/ws?user=u%d", i)))
		open[i].head()
		if got, want := open[i].line(), fmt.Sprintf("held/u%d", i); got != want {
			t.Fatalf("session %d says %q, want %q", i, got, want)
		}
		_ = open[i].SetDeadline(time.Now().Add(3 * time.Minute)) // it has all of the test to live through
	}

	// Others ask all the time, on connections that are kept.
	stop, asked := make(chan struct{}), new(atomic.Int64)
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			transport := new(http.Transport)
			defer transport.CloseIdleConnections()
			for {
				select {
				case <-stop:
					return
				default:
				}
				answer, err := transport.RoundTrip(request(e, "/page"))
				if err != nil {
					t.Errorf("a request during a reload: %v", err)
					return
				}
				body, err := io.ReadAll(answer.Body)
				_ = answer.Body.Close()
				if name, _, _ := strings.Cut(string(body), " "); err != nil || answer.StatusCode != http.StatusOK || name != "even" && name != "odd" {
					t.Errorf("a request during a reload: %s %q, %v", answer.Status, body, err)
					return
				}
				asked.Add(1)
			}
		})
	}

	insecure := &tls.Config{InsecureSkipVerify: true}
	for n := 1; n <= reloads; n++ {
		odd := n % 2
		if err := e.Reload(configs[odd]); err != nil {
			t.Fatal(err)
		}
		name, client, big := "even", "127.0.0.1", 200
		if odd == 1 {
			name, client, big = "odd", "192.0.2.1, 127.0.0.1", 431
		}
		if _, body := e.send(get("/", "X-Forwarded-For: 192.0.2.1")).whole(); body != name+" "+client {
			t.Fatalf("reload %d: %q, want %q", n, body, name+" "+client)
		}
		if head, body := e.send(get("/", "X-Big: "+strings.Repeat("x", 4<<10))).whole(); head.StatusCode != big {
			t.Fatalf("reload %d: a head of 4 KiB is answered %s %s, want %d", n, head.Status, body, big)
		}
		if n%10 < 2 { // handshakes are dear under the race detector
			conn, err := tls.Dial("tcp", e.addrs[1].String(), insecure)
			if err != nil {
				t.Fatal(err)
			}
			if got := conn.ConnectionState().PeerCertificates[0].Subject.CommonName; got != name+".test" {
				t.Fatalf("reload %d: the certificate is of %s, want %s.test", n, got, name)
			}
			_ = conn.Close()
		}
	}
	close(stop)
	load.Wait()

	if got := e.Sessions(); got != sessions {
		t.Errorf("%d sessions after %d reloads, want %d", got, reloads, sessions)
	}
	for i, c := range open {
		say(c, "%d\n", i)
	}
	for i, c := range open {
		if got := c.line(); got != fmt.Sprint(i) {
			t.Fatalf("session %d says %q", i, got)
		}
	}
	if asked.Load() < int64(reloads) {
		t.Errorf("%d requests during %d reloads: that is no load", asked.Load(), reloads)
	}
	t.Logf("%d requests during %d reloads", asked.Load(), reloads)
}

// request is a plain one to e's first listener.
func request(e *running, target string) *http.Request {
	r, err := http.NewRequest(http.MethodGet, "http://"+e.Addr().String()+target, nil)
	if err != nil {
		panic(err) // a target that the test has made up wrongly
	}
	return r
}
