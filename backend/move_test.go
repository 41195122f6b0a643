package backend_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/testkit"
)

// crowd is many users, each with one session at its home, and how those were closed.
type crowd struct {
	t     *testing.T
	homes map[string]string

	mu     sync.Mutex
	closes map[string]closeSeen
	done   sync.WaitGroup
}

type closeSeen struct {
	code   int
	reason string
	at     time.Time
}

func newCrowd(t *testing.T, c *cluster, users int) *crowd {
	cr := &crowd{t: t, homes: make(map[string]string), closes: make(map[string]closeSeen)}
	t.Cleanup(cr.done.Wait) // runs after the clients' closes below
	for i := range users {
		user := fmt.Sprintf("user-%d", i)
		home := c.home(user)
		cr.homes[user] = home.ID()
		client := home.dial(t, user, "/")
		cr.done.Go(func() { cr.watch(user, client) })
	}
	return cr
}

// watch reads until the session is closed by the server, or by the end of the test.
func (cr *crowd) watch(user string, client *client) {
	code, reason, err := client.readClose()
	if err != nil {
		return
	}
	cr.mu.Lock()
	cr.closes[user] = closeSeen{int(code), reason, time.Now()}
	cr.mu.Unlock()
	client.Close()
}

func (cr *crowd) seen() map[string]closeSeen {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	seen := make(map[string]closeSeen, len(cr.closes))
	for user, c := range cr.closes {
		seen[user] = c
	}
	return seen
}

// A member joins: those whose owner changed are sent away, and nobody else.
func TestMoveClosesExactlyTheMoved(t *testing.T) {
	c := newCluster(t, 2, nil)
	crowd := newCrowd(t, c, 80)
	c.add(nil)
	moved := make(map[string]bool)
	for user, before := range crowd.homes {
		if c.home(user).ID() != before {
			moved[user] = true
		}
	}
	if len(moved) == 0 || len(moved) == len(crowd.homes) {
		t.Fatalf("%d of %d users moved: this ring shows nothing", len(moved), len(crowd.homes))
	}
	testkit.Eventually(t, 10*time.Second, func() bool { return len(crowd.seen()) >= len(moved) }, "the moved to be closed")
	for user, close := range crowd.seen() {
		if !moved[user] || close.code != 1012 || close.reason != "moved" {
			t.Errorf("%s (moved: %t) was closed with %d %q", user, moved[user], close.code, close.reason)
		}
	}
	for user := range crowd.homes { // those that stayed are still there, and reached from anywhere
		want := 1
		if moved[user] {
			want = 0
		}
		if n, err := c.members[2].Push(context.Background(), user, backend.Text("x")); n != want || err != nil {
			t.Errorf("push to %s: %d, %v; want %d", user, n, err, want)
		}
	}
	var counted float64
	for _, m := range c.members[:2] {
		counted += metric(t, m.registry, "selvedge_backend_moves_total")
	}
	if int(counted) != len(moved) {
		t.Errorf("moves_total %v, want %d", counted, len(moved))
	}
}

func TestMoveKeepsThePace(t *testing.T) {
	t.Parallel()
	const spread = 2 * time.Second
	c := newCluster(t, 1, func(cfg *backend.Config) { cfg.Move.Spread = spread })
	crowd := newCrowd(t, c, 60)
	joined := time.Now()
	c.add(nil)
	var moved int
	for user := range crowd.homes {
		if c.home(user) == c.members[1] {
			moved++
		}
	}
	testkit.Eventually(t, 15*time.Second, func() bool { return len(crowd.seen()) >= moved }, "the moved to be closed")
	var last time.Duration
	early := 0
	for _, close := range crowd.seen() {
		after := close.at.Sub(joined)
		last = max(last, after)
		if after < spread/2 {
			early++
		}
	}
	t.Logf("%d of 60 moved, %d of them in the first half of the spread, the last after %v", moved, early, last)
	if last < spread*6/10 || last > 3*spread {
		t.Errorf("the last was closed after %v; they are to be spread over %v", last, spread)
	}
	if early > moved*8/10 {
		t.Errorf("%d of %d were closed in the first half of the spread", early, moved)
	}
}

// stays fails if the session is closed within d.
func (c *client) stays(d time.Duration) {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(d))
	code, _, err := c.readClose()
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		c.t.Fatalf("the session should have stayed; got code %d, %v", code, err)
	}
}

// Nobody is sent to a home that does not answer, or that does not know that it is one.
func TestMoveWaitsForTheHome(t *testing.T) {
	t.Parallel()
	stop := func() {}
	for _, test := range []struct {
		name string
		home func(t *testing.T) discovery.Member
	}{
		{"not there", func(t *testing.T) discovery.Member {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ln.Close()
			return discovery.Member{ID: "b9", Incarnation: 1, Addr: ln.Addr().String(), RPCAddr: ln.Addr().String(), Weight: 3}
		}},
		{"hangs", func(t *testing.T) discovery.Member {
			ln, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, nobody answers
			if err != nil {
				t.Fatal(err)
			}
			stop = func() { ln.Close() }
			t.Cleanup(stop)
			return discovery.Member{ID: "b9", Incarnation: 1, Addr: ln.Addr().String(), RPCAddr: ln.Addr().String(), Weight: 3}
		}},
		{"another ring", func(t *testing.T) discovery.Member {
			alone := newCluster(t, 1, func(cfg *backend.Config) { cfg.ID = "b9" }).members[0]
			return discovery.Member{ID: "b9", Incarnation: 1, Addr: alone.Addr().String(), RPCAddr: alone.RPCAddr().String(), Weight: 3}
		}},
		{"another member at its address", func(t *testing.T) discovery.Member {
			other := newCluster(t, 1, func(cfg *backend.Config) { cfg.ID = "b8" }).members[0]
			return discovery.Member{ID: "b9", Incarnation: 1, Addr: other.Addr().String(), RPCAddr: other.RPCAddr().String(), Weight: 3}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 1, nil)
			m := c.members[0]
			home := test.home(t)
			c.registry.Put("default", home)
			user := ""
			testkit.Eventually(t, 5*time.Second, func() bool {
				for i := 0; i < 100 && user == ""; i++ {
					if name := fmt.Sprint("user-", i); m.Owner(name) == home.ID {
						user = name
					}
				}
				return user != ""
			}, "the new member to own somebody")
			client := m.dial(t, user, "/")
			client.stays(1500 * time.Millisecond)                                                                // several settles, and more than one round of asking
			if n := metric(t, m.registry, "selvedge_backend_sessions_to_move"); n != 1 && test.name == "hangs" { // who is not there is soon held dead
				t.Errorf("%v sessions to move, want 1", n)
			}
			// It goes as soon as there is a home that knows: here, after the other one has left, its own.
			c.registry.Delete("default", home.ID)
			testkit.Eventually(t, 5*time.Second, func() bool { return m.Owner(user) == m.ID() }, "the ring as before")
			if test.name == "hangs" { // off the ring and silent, it may hold a session all the same
				ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
				defer cancel()
				if _, err := m.Push(ctx, user, backend.Text("still here"), backend.WithMessageID("1")); !errors.Is(err, backend.ErrUnsettled) {
					t.Fatalf("with a member that hangs: %v, want unsettled", err)
				}
				stop()
			}
			if n, err := m.Push(context.Background(), user, backend.Text("still here"), backend.WithMessageID("1")); n != 1 || err != nil {
				t.Fatalf("push: %d, %v", n, err)
			}
			client.want("still here")
			testkit.Eventually(t, 5*time.Second, func() bool { return metric(t, m.registry, "selvedge_backend_sessions_to_move") == 0 }, "nobody to move")
		})
	}
}

// A client whose edge cannot reach the home comes back to the wrong member: it is not sent away again at once.
func TestMovedOnceIsLeftAlone(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, nil)
	away := c.elsewhere("alice")
	away.dial(t, "alice", "/").wantClose(1012)
	again := away.dial(t, "alice", "/")
	again.stays(2 * time.Second)
	if n, err := c.home("alice").Push(context.Background(), "alice", backend.Text("found")); n != 1 || err != nil {
		t.Fatalf("push: %d, %v", n, err)
	}
	again.want("found")
}

func TestMoveKeep(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, func(cfg *backend.Config) { cfg.OnMove = backend.MoveKeep })
	client := c.elsewhere("alice").dial(t, "alice", "/")
	client.stays(time.Second)
}
