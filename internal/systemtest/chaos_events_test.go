package systemtest

import (
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/selvedge/selvedge/hashring"
)

// kind is what can happen to a world.
type kind string

const (
	drained      kind = "drain"
	added        kind = "new backend"
	restarted    kind = "restart, same id"
	reweighed    kind = "weight change"
	killed       kind = "kill -9"
	stopped      kind = "SIGSTOP for 5 s"
	consulBack   kind = "Consul restarted"
	edgeKilled   kind = "edge killed"
	cutConsul    kind = "cut from Consul"
	cutPeers     kind = "cut from its peers"
	cutEdge      kind = "cut from one edge"
	killedAmidst kind = "kill -9 amid others" // the same, while other members hang or are cut off
)

var (
	cleanKinds = []kind{drained, added, restarted, reweighed}
	dirtyKinds = []kind{stopped, consulBack, edgeKilled, cutConsul, cutPeers, cutEdge}
	cutKinds   = []kind{cutConsul, cutPeers, cutEdge}
)

const (
	stopFor      = 5 * time.Second
	edgeAway     = time.Second
	killedAtMost = 5 * time.Second // until a killed backend is started again: before Consul knows, and with luck before anybody does
	cutShort     = 6 * time.Second // less than any lease
	cutLong      = 12 * time.Second
)

// event is something that happened.
type event struct {
	kind    kind
	subject string
	at      time.Time
	users   []string // of those whom it touches, some

	mu      sync.Mutex
	reached []time.Duration // until a push to a user of these was delivered again
	missing int             // users to whom none was, within probeFor
}

// planned is an event of a plan.
type planned struct {
	at    time.Duration
	phase int
	kind  kind
}

// phases of a plan begin at these shares of its time. First come clean events only, then kills among them, then everything else.
var phases = []float64{0, 0.3, 0.5}

// newPlan draws up what happens when: each kind rounds times at least, in a drawn order.
func newPlan(rng *rand.Rand, whole time.Duration, rounds int, cuts bool) []planned {
	var kinds [3][]kind
	for range rounds {
		kinds[0] = append(kinds[0], cleanKinds...)
		kinds[1] = append(kinds[1], killed)
		kinds[2] = append(kinds[2], dirtyKinds...)
	}
	if rounds > 1 { // time enough
		kinds[1] = append(kinds[1], cleanKinds...)
	}
	kinds[2] = append(kinds[2], added, killedAmidst)
	if !cuts {
		kinds[2] = slices.DeleteFunc(kinds[2], func(k kind) bool { return slices.Contains(cutKinds, k) })
	}
	var plan []planned
	for i, list := range kinds {
		rng.Shuffle(len(list), func(a, b int) { list[a], list[b] = list[b], list[a] })
		from, to := phaseOf(i, whole)
		for n, k := range list {
			plan = append(plan, planned{from + (to-from)*time.Duration(n)/time.Duration(len(list)), i, k})
		}
	}
	return plan
}

func phaseOf(i int, whole time.Duration) (from, to time.Duration) {
	share := func(i int) time.Duration {
		if i == len(phases) {
			return whole
		}
		return time.Duration(phases[i] * float64(whole))
	}
	return share(i), share(i + 1)
}

// happen makes an event of kind k come about; false: it cannot, yet.
func (w *world) happen(k kind) bool {
	switch k {
	case added:
		now := w.rings.now().Ring
		b := w.addBackend()
		w.began(k, b.id, w.movedBy(now, b.id, 1))
		return true
	case reweighed:
		return w.reweigh()
	case consulBack:
		return w.restartConsul()
	case edgeKilled:
		if len(calm(w.edges)) < len(w.edges) {
			return false
		}
		e := w.edges[w.rng.IntN(len(w.edges))]
		e.busy = true
		w.began(k, e.id, w.heldBy(e.id))
		e.kill()
		w.after(edgeAway, func() { w.startEdge(e) })
		return true
	}
	b := w.pick()
	if b == nil {
		return false
	}
	users := w.heldBy(b.id)
	b.busy = true
	switch k {
	case drained:
		w.began(k, b.id, users)
		b.signal(syscall.SIGTERM)
		w.when(b.ended, func() {
			w.backends = slices.DeleteFunc(w.backends, func(n *node) bool { return n == b })
		})
	case restarted:
		w.began(k, b.id, users)
		b.signal(syscall.SIGTERM)
		w.when(b.ended, func() { w.startBackend(b) })
	case killed, killedAmidst:
		killed := time.Now()
		b.kill()
		w.beganAt(k, b.id, users, killed) // probes before that would take the processor time that dying needs
		w.after(time.Duration(w.rng.Int64N(int64(killedAtMost))), func() { w.startBackend(b) })
	case stopped:
		w.began(k, b.id, users)
		b.signal(syscall.SIGSTOP)
		speaks := w.silence(b.id, "")
		w.after(stopFor, func() { b.signal(syscall.SIGCONT); speaks(); b.busy = false })
	case cutConsul:
		w.began(k, b.id, users)
		w.cut(b, lanConsul)
	case cutPeers:
		w.began(k, b.id, users)
		var peers []string
		for _, p := range w.backends {
			if p != b {
				peers = append(peers, p.host.ip)
			}
		}
		w.cut(b, peers...)
	case cutEdge:
		e := w.edges[w.rng.IntN(len(w.edges))]
		w.began(k, b.id+" from "+e.id, users)
		speaks := w.silence(b.id, e.id)
		w.after(w.cut(b, e.host.ip), speaks)
	}
	return true
}

// probes is how many of an event's users are asked for at most. More would measure themselves.
const probes = 20

// began logs an event, and has some of its users asked for until each can be reached.
func (w *world) began(k kind, subject string, users []string) {
	w.beganAt(k, subject, users, time.Now())
}

func (w *world) beganAt(k kind, subject string, users []string, when time.Time) {
	e := &event{kind: k, subject: subject, at: when}
	w.events = append(w.events, e)
	w.t.Logf("%8s  %-20s %s (%d users)", at(e.at), k, subject, len(users))
	w.rng.Shuffle(len(users), func(a, b int) { users[a], users[b] = users[b], users[a] })
	e.users = users[:min(len(users), probes)]
	for _, user := range e.users {
		w.pushes.wg.Go(func() {
			took, ok := w.pushes.probe(user, e.at)
			e.mu.Lock()
			defer e.mu.Unlock()
			if ok {
				e.reached = append(e.reached, took)
			} else {
				e.missing++
			}
		})
	}
}

// cut cuts b from others for a while, which it returns; then b is undisturbed again.
func (w *world) cut(b *node, others ...string) time.Duration {
	for _, ip := range others {
		w.lan.cut(b.host.ip, ip)
	}
	long := cutShort
	if w.rng.IntN(3) == 0 {
		long = cutLong
	}
	w.after(long, func() {
		for _, ip := range others {
			w.lan.heal(b.host.ip, ip)
		}
		b.busy = false
	})
	return long
}

// silence notes for the judge that a backend cannot speak to an edge ("": to nobody) until speaks is called.
func (w *world) silence(backend, edge string) (speaks func()) {
	q := &silence{backend: backend, edge: edge, from: time.Now()}
	w.silences = append(w.silences, q)
	return func() { q.to = time.Now() }
}

// movedBy lists the users whom a ring gives to id once that has the weight.
func (w *world) movedBy(ring *hashring.Ring, id string, weight int) []string {
	with, err := ring.With(hashring.Member{ID: id, Weight: weight})
	if err != nil {
		w.t.Fatal(err)
	}
	var users []string
	for _, user := range w.pushes.users {
		if with.Owner(user) != ring.Owner(user) {
			users = append(users, user)
		}
	}
	return users
}

// reweigh changes a backend's weight in Consul, as an operator would: to 2, or back to 1.
func (w *world) reweigh() bool {
	free := calm(w.backends)
	if len(free) == 0 || w.consulAway {
		return false
	}
	b := free[w.rng.IntN(len(free))]
	agent := w.consul.Client().Agent()
	there, _, err := agent.Service(b.id, nil)
	if err != nil {
		return false // it does not know b yet
	}
	weight := 3 - min(there.Weights.Passing, 2)
	users := w.movedBy(w.rings.now().Ring, b.id, weight)
	w.began(reweighed, b.id, users)
	err = agent.ServiceRegister(&api.AgentServiceRegistration{
		ID: there.ID, Name: there.Service, Address: there.Address, Port: there.Port, Meta: there.Meta, Tags: there.Tags,
		Weights: &api.AgentWeights{Passing: weight, Warning: weight},
	})
	if err != nil {
		w.t.Errorf("Consul takes no weight: %v", err)
	}
	return true
}

// restartConsul kills Consul and starts it again at once; it takes some seconds.
func (w *world) restartConsul() bool {
	if w.consulAway {
		return false
	}
	w.began(consulBack, "consul", nil)
	w.consulAway = true
	w.consul.Stop()
	up := make(chan struct{})
	go func() { defer close(up); w.consul.Start() }()
	back := func() bool {
		select {
		case <-up:
			return true
		default:
			return false
		}
	}
	w.when(back, func() { w.consulAway = false })
	return true
}
