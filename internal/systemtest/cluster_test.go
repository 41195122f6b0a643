package systemtest

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/selvedge/selvedge/backend/sender"
	"github.com/selvedge/selvedge/internal/testkit"
)

// cluster is a Consul server, backends and edges, each a process of its own.
type cluster struct {
	t        *testing.T
	consul   *testkit.Consul
	backends map[string]*member
	edges    []*frontDoor
}

type member struct {
	*process
	id, addr, rpc string
	admin         string // "": it has none
}

type frontDoor struct {
	*process
	addr, admin string
}

func newCluster(t *testing.T, backends, edges int) *cluster {
	t.Helper()
	c := &cluster{t: t, consul: testkit.StartConsul(t), backends: make(map[string]*member)}
	for i := range backends {
		c.addBackend(fmt.Sprintf("b%d", i+1))
	}
	for i := range edges {
		c.addEdge(fmt.Sprintf("edge %d", i+1), "--consul", c.consul.Addr)
	}
	c.awaitRing(backends)
	return c
}

// addBackend starts a backend and waits until it serves.
func (c *cluster) addBackend(id string, args ...string) *member {
	c.t.Helper()
	p := start(c.t, id, append([]string{"backend", "--id", id, "--listen", "127.0.0.1:0", "--rpc", "127.0.0.1:0", "--consul", c.consul.Addr}, args...)...)
	entry := p.waitLog("serving")
	m := &member{process: p, id: id, addr: entry["addr"].(string), rpc: entry["rpc"].(string)}
	m.admin, _ = entry["admin"].(string)
	c.backends[id] = m
	return m
}

func (c *cluster) addEdge(name string, args ...string) *frontDoor {
	e := startEdge(c.t, name, args...)
	c.edges = append(c.edges, e)
	return e
}

func startEdge(t testing.TB, name string, args ...string) *frontDoor {
	t.Helper()
	p := start(t, name, append([]string{"edge", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"}, args...)...)
	entry := p.waitLog("edge is listening")
	return &frontDoor{p, entry["addr"].(string), entry["admin"].(string)}
}

// awaitRing waits until every process decides by a ring of n members, and the same one.
func (c *cluster) awaitRing(n int) {
	c.t.Helper()
	var digests []string
	testkit.Eventually(c.t, 30*time.Second, func() error {
		digests = digests[:0]
		for _, addr := range c.processes() {
			r := c.ring(addr)
			if r == nil || r.size() != n {
				return fmt.Errorf("%s has %+v", addr, r)
			}
			digests = append(digests, r.Digest)
		}
		for _, d := range digests {
			if d != digests[0] {
				return fmt.Errorf("digests %v", digests)
			}
		}
		return nil
	}, fmt.Sprintf("every process to see a ring of %d", n))
}

// processes lists where each process tells its ring.
func (c *cluster) processes() []string {
	var addrs []string
	for _, b := range c.backends {
		addrs = append(addrs, b.rpc)
	}
	for _, e := range c.edges {
		addrs = append(addrs, e.admin)
	}
	return addrs
}

// ring is what `selvedge ring show` prints.
type ring struct {
	Digest  string `json:"ring"`
	Members []struct {
		ID     string  `json:"id"`
		State  string  `json:"state"`
		Health string  `json:"health"`
		Share  float64 `json:"share"`
	} `json:"members"`
}

func (r *ring) size() int {
	n := 0
	for _, m := range r.Members {
		if m.Share > 0 {
			n++
		}
	}
	return n
}

// ring asks a process for its ring; nil where it has none.
func (c *cluster) ring(addr string) *ring {
	stdout, _, code := run(c.t, "", "ring", "show", "--via", addr, "--output", "json")
	if code != 0 {
		return nil
	}
	var r ring
	unmarshal(c.t, stdout, &r)
	return &r
}

// owners asks `selvedge ring owner` for each user.
func (c *cluster) owners(users []string) map[string]string {
	c.t.Helper()
	return owners(c.t, users, "--consul", c.consul.Addr)
}

func owners(t testing.TB, users []string, reach ...string) map[string]string {
	t.Helper()
	type line struct{ User, Backend string }
	lines, code := runJSON[line](t, append(append([]string{"ring", "owner"}, users...), reach...)...)
	if code != 0 || len(lines) != len(users) {
		t.Fatalf("ring owner: exit code %d, %d lines for %d users", code, len(lines), len(users))
	}
	owner := make(map[string]string, len(users))
	for _, l := range lines {
		owner[l.User] = l.Backend
	}
	return owner
}

// pushed is a line of `selvedge push`.
type pushed struct {
	User     string `json:"user"`
	Outcome  string `json:"outcome"`
	Sessions int    `json:"sessions"`
	Error    string `json:"error"`
}

// push runs `selvedge push` for users and returns the results.
func (c *cluster) push(users []string, text string) []pushed {
	c.t.Helper()
	file := c.t.TempDir() + "/users"
	if err := os.WriteFile(file, []byte(strings.Join(users, "\n")+"\n"), 0o600); err != nil {
		c.t.Fatal(err)
	}
	results, _ := runJSON[pushed](c.t, "push", "--to-file", file, "--text", text, "--consul", c.consul.Addr, "--timeout", "20s")
	if len(results) != len(users) {
		c.t.Fatalf("push: %d results for %d users", len(results), len(users))
	}
	return results
}

// sender is a process inside that pushes by id: this one.
func (c *cluster) sender() *sender.Sender {
	c.t.Helper()
	s, err := sender.New(sender.Config{Membership: sender.Membership{Consul: &sender.Consul{Addr: c.consul.Addr}}})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(s.Close)
	return s
}

func userNames(n int) []string {
	users := make([]string, n)
	for i := range users {
		users[i] = fmt.Sprintf("user-%d", i)
	}
	return users
}
