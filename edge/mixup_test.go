package edge

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/discovery"
)

// twoFaced answers upgrades like echo, and as many plain requests as come with its name.
func twoFaced(name string) backendFunc {
	return func(conn net.Conn, br *bufio.Reader, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			echo(name)(conn, br, r)
			return
		}
		for err := error(nil); err == nil; _, err = http.ReadRequest(br) {
			say(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(name), name)
		}
	}
}

// The Ribbon bug, where one ring ruled all services: two of them behind one edge, with members of the same ids and users of the same names. While
// both rings change all the time, 10,000 requests and 500 sessions go to their own service's members.
func TestServicesNeverMixWhileRingsChange(t *testing.T) {
	requests, sessions := 10_000, 500
	if slowPath {
		requests, sessions = 400, 40
	}
	services, registry := []string{"chat", "game"}, discovery.NewMemory()
	members := make(map[string][]discovery.Member)
	for _, name := range services {
		for i := range 4 {
			m := discovery.Member{ID: fmt.Sprint("b", i), Addr: listenBackend(t, twoFaced(name)), Weight: 1 + i}
			members[name] = append(members[name], m)
			registry.Put(name, m)
		}
	}
	e := start(t, Config{Membership: Membership{Memory: registry},
		Routes: []Route{{Path: "/chat", Service: "chat"}, {Path: "/game", Service: "game"}}})

	// b0 stays; the others come and go, in both services at once.
	stop := make(chan struct{})
	var changes sync.WaitGroup
	changes.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond) // far more often than once a second, and as long as the requests take
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			for i, name := range services {
				m := members[name][1+(n/2+i)%3]
				if n%2 == 0 {
					registry.Delete(name, m.ID)
				} else {
					registry.Put(name, m)
				}
			}
		}
	})

	var load sync.WaitGroup
	const workers = 10
	for w := range workers {
		load.Go(func() {
			transport := new(http.Transport)
			defer transport.CloseIdleConnections()
			for i := w; i < requests; i += workers {
				want := services[i/workers%2]
				answer, err := transport.RoundTrip(request(e, fmt.Sprintf("/%s?user=u%d", want, i)))
				if err != nil {
					t.Errorf("request %d: %v", i, err)
					return
				}
				body, err := io.ReadAll(answer.Body)
				_ = answer.Body.Close()
				if err != nil || answer.StatusCode != http.StatusOK || string(body) != want {
					t.Errorf("request %d of %s: %s, %q, %v", i, want, answer.Status, body, err)
					return
				}
			}
		})
	}
	for i := range sessions {
		want := services[i%2]
		c := e.send(upgradeTo(fmt.Sprintf("/%s?user=u%d", want, i/2)))
		c.head()
		if got := c.line(); got != fmt.Sprintf("%s/u%d", want, i/2) {
			t.Fatalf("session %d: got %s, want %s", i, got, want)
		}
		_ = c.SetDeadline(time.Time{})
	}
	load.Wait()
	close(stop)
	changes.Wait()
	for _, name := range services {
		if changes := e.View(name).RingChanges(); changes < 3 {
			t.Errorf("%d changes of the ring of %s: that is no change", changes, name)
		}
	}
	if got := e.Sessions(); got != sessions {
		t.Errorf("%d sessions, want %d", got, sessions)
	}
}
