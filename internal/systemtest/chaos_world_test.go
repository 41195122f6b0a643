package systemtest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selvedge/selvedge/backend/sender"
	"github.com/selvedge/selvedge/internal/testkit"
)

// world is what a chaos run disturbs: Consul, backends and edges, each a process on a host of its own. It belongs to the test's goroutine.
type world struct {
	t        *testing.T
	rng      *rand.Rand // decides what happens
	lan      *lan       // nil: all hosts are loopback, and nothing can be cut
	consul   *testkit.Consul
	registry string // Consul's address for the members
	config   string // file of the backends and edges
	token    string // of their RPC
	backends []*node
	edges    []*node
	rings    *rings
	pushes   *pushes
	clients  *clients

	pending  []errand
	events   []*event
	silences []*silence
	named    int // backends so far

	consulAway bool // being started again
}

// node is a backend or an edge; its processes come and go.
type node struct {
	*process
	id   string
	host *host
	busy bool // something is being done to it: it does not, or not yet, serve undisturbed
}

// errand is something to be done once it can be.
type errand struct {
	ready func() bool
	do    func()
}

// setup is what a world begins with.
type setup struct {
	lan             *lan // nil: all hosts are loopback
	backends, edges int
	spread          time.Duration // over which a backend spreads moves
	maxPerSecond    float64       // share of its sessions that a backend moves in a second
}

// newWorld returns a world whose processes all serve.
func newWorld(t *testing.T, rng *rand.Rand, s setup) *world {
	t.Helper()
	w := &world{t: t, rng: rng, lan: s.lan, consul: testkit.StartConsul(t), token: "of a chaos run"}
	w.registry = w.consul.Addr
	if w.lan != nil {
		w.registry = startRelay(t, lanConsul+":8500", w.consul.Addr)
	}
	w.configure(s)
	w.rings = watchRings(t, w.consul.Addr)
	for range s.backends {
		w.addBackend()
	}
	for i := range s.edges {
		e := &node{id: fmt.Sprintf("e%d", i+1), host: w.newHost()}
		w.edges = append(w.edges, e)
		w.startEdge(e)
	}
	w.await(30*time.Second, func() error { return w.ringOf(s.backends) }, "everything to serve")
	return w
}

func (w *world) newHost() *host {
	w.t.Helper()
	if w.lan == nil {
		return loopbackHost(w.t)
	}
	return ownHost(w.lan)
}

// configure writes what the command line has no flags for.
func (w *world) configure(s setup) {
	w.t.Helper()
	dir := w.t.TempDir()
	token := filepath.Join(dir, "token")
	secret := filepath.Join(dir, "secret")
	w.config = filepath.Join(dir, "selvedge.yaml")
	text := fmt.Sprintf("backend:\n  rpc: {token_file: %q, peer_token_file: %q}\n  edge_secret_file: %q\n  move: {spread: %v, max_per_second: %v}\n"+
		"services: {default: {edge_secret_file: %q}}\n", token, token, secret, s.spread, s.maxPerSecond, secret)
	for path, text := range map[string]string{token: w.token, secret: strings.Repeat("5e", 32), w.config: text} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
}

// sender is one that a service would have.
func (w *world) sender() *sender.Sender {
	w.t.Helper()
	s, err := sender.New(sender.Config{Membership: sender.Membership{Consul: &sender.Consul{Addr: w.consul.Addr}}, Token: w.token})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(s.Close)
	return s
}

const drainWithin = 8 * time.Second

// addBackend starts a backend of a new id.
func (w *world) addBackend() *node {
	w.named++
	b := &node{id: fmt.Sprintf("b%d", w.named), host: w.newHost()}
	w.backends = append(w.backends, b)
	w.startBackend(b)
	return b
}

// startBackend starts b's process. b is busy until it serves.
func (w *world) startBackend(b *node) {
	b.busy = true
	b.host.enter(func() {
		b.process = start(w.t, b.id, "backend", "--config", w.config, "--id", b.id, "--listen", b.host.listen, "--rpc", b.host.rpc,
			"--consul", w.registry, "--drain-timeout", drainWithin.String())
	})
	w.when(func() bool { return b.logged("serving") }, func() { b.busy = false })
}

func (w *world) startEdge(e *node) {
	e.busy = true
	e.host.enter(func() {
		e.process = start(w.t, e.id, "edge", "--config", w.config, "--listen", e.host.listen, "--admin", "127.0.0.1:0", "--consul", w.registry)
	})
	w.when(func() bool { return e.logged("edge is listening") }, func() { e.busy = false })
}

// when has do done as soon as ready says so.
func (w *world) when(ready func() bool, do func()) { w.pending = append(w.pending, errand{ready, do}) }

// after has do done a while later.
func (w *world) after(d time.Duration, do func()) {
	due := time.Now().Add(d)
	w.when(func() bool { return !time.Now().Before(due) }, do)
}

// work does what can be done, and fails the test where a process that nobody harmed has ended.
func (w *world) work() {
	w.t.Helper()
	all := w.pending
	w.pending = nil
	for _, e := range all {
		if e.ready() {
			e.do()
		} else {
			w.pending = append(w.pending, e)
		}
	}
	for _, n := range slices.Concat(w.backends, w.edges) {
		if n.ended() && !n.busy {
			n.busy = true // said once
			w.t.Errorf("%s ended by itself:\n%s", n.id, n.tail(20))
		}
	}
}

// calm lists the nodes that nothing is being done to.
func calm(nodes []*node) []*node {
	return slices.DeleteFunc(slices.Clone(nodes), func(n *node) bool { return n.busy })
}

// leastCalm is how many backends are always left alone: enough to take over.
const leastCalm = 2

// await works until ok holds.
func (w *world) await(within time.Duration, ok func() error, what string) {
	w.t.Helper()
	testkit.Eventually(w.t, within, func() error { w.work(); return ok() }, what)
}

// ringOf tells whether Consul's catalogue makes a ring of n members.
func (w *world) ringOf(n int) error {
	if got := w.rings.now().Ring.Len(); got != n || len(w.pending) > 0 {
		return fmt.Errorf("the ring has %d members; %d things are not done yet", got, len(w.pending))
	}
	return nil
}

// pick draws a backend to harm, one that holds sessions where there is one; nil while too few are undisturbed.
func (w *world) pick() *node {
	free := calm(w.backends)
	if len(free) <= leastCalm {
		return nil
	}
	holding := slices.DeleteFunc(slices.Clone(free), func(b *node) bool { return len(w.heldBy(b.id)) == 0 })
	if len(holding) > 0 {
		free = holding
	}
	return free[w.rng.IntN(len(free))]
}

// connect brings everybody online, perUser devices of each user, and waits until all are where they belong: some come before their edge
// knows all backends.
func (w *world) connect(users []string, perUser int) {
	w.t.Helper()
	w.pushes = &pushes{sender: w.sender(), users: users}
	w.clients = connectAll(users, perUser, w.edges)
	w.t.Cleanup(w.clients.close)
	w.await(60*time.Second, w.everybodyHome, "everybody to be at the owner")
}

// everybodyHome tells who is not connected to the user's owner.
func (w *world) everybodyHome() error {
	ring := w.rings.now().Ring
	for _, c := range w.clients.list {
		if s, open := c.present(); !open || s.backend != ring.Owner(c.user) {
			return fmt.Errorf("such as %s, whose owner is %s", &s, ring.Owner(c.user))
		}
	}
	return nil
}

// heldBy lists the users with a session that the backend, or the edge, of this id holds.
func (w *world) heldBy(id string) []string {
	var users []string
	for _, c := range w.clients.list {
		if s, open := c.present(); open && (s.backend == id || s.edge == id) {
			users = append(users, c.user)
		}
	}
	slices.Sort(users)
	return slices.Compact(users)
}

// ended tells whether the process has.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// logged tells whether there is a log entry of that message.
func (p *process) logged(message string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.lines, func(line string) bool { return strings.Contains(line, `"msg":"`+message+`"`) })
}
