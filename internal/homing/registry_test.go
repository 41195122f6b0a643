package homing_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/selvedge/selvedge/hashring"
	"github.com/selvedge/selvedge/internal/homing"
)

const (
	registryPlace = "consul"
	checkTTL      = 10 * time.Second
	deregister    = time.Minute // after it has become critical
)

// registry is the simulated Consul: entries with a TTL, consistent reads, and watches whose news come late, or are old once more.
type registry struct {
	*process
	entries  []*entry // sorted by member
	history  []*view
	watchers []*watcher
}

type entry struct {
	peer      homing.Peer
	state     string // joining, serving or draining
	weight    int
	beat      time.Duration
	isPassing bool
}

// view is one snapshot of the registry.
type view struct {
	key        string
	ring       *hashring.Ring
	registered []homing.Peer
	addr       map[string]string // by member
}

type watcher struct {
	process *process
	set     func(*view)
}

func newRegistry(w *world) *registry {
	r := &registry{process: w.newProcess(registryPlace, registryPlace)}
	w.network.listeners[registryPlace] = r.process
	r.history = []*view{{}}
	r.every(250*time.Millisecond, r.expire)
	return r
}

// register makes an entry; a late word of an earlier incarnation changes nothing.
func (r *registry) register(p homing.Peer, state string, weight int) {
	at, found := slices.BinarySearchFunc(r.entries, p.Member, func(e *entry, id string) int { return cmp.Compare(e.peer.Member, id) })
	if !found {
		r.entries = slices.Insert(r.entries, at, &entry{})
	}
	if r.entries[at].peer.Incarnation <= p.Incarnation {
		*r.entries[at] = entry{p, state, weight, r.w.now, true}
	}
	r.changed()
}

func (r *registry) remove(p homing.Process) {
	r.entries = slices.DeleteFunc(r.entries, func(e *entry) bool { return e.peer.Process == p })
	r.changed()
}

func (r *registry) expire() {
	for _, e := range r.entries {
		if r.w.now-e.beat > checkTTL && !r.w.kind.static {
			e.isPassing = false
		}
	}
	r.entries = slices.DeleteFunc(r.entries, func(e *entry) bool { return r.w.now-e.beat > checkTTL+deregister && !r.w.kind.static })
	r.changed()
}

// catalog is what a consistent read shows.
func (r *registry) catalog() []homing.Registration {
	var all []homing.Registration
	for _, e := range r.entries {
		all = append(all, homing.Registration{Peer: r.shown(e.peer), Passing: e.isPassing})
	}
	return all
}

// shown is a peer as the registry names it: a list that was written by hand names no incarnations.
func (r *registry) shown(p homing.Peer) homing.Peer {
	if r.w.kind.static {
		p.Incarnation = 0
	}
	return p
}

func (r *registry) latest() *view { return r.history[len(r.history)-1] }

func (r *registry) changed() {
	v := &view{addr: make(map[string]string)}
	var members []hashring.Member
	var key strings.Builder
	for _, e := range r.entries {
		v.registered = append(v.registered, r.shown(e.peer))
		v.addr[e.peer.Member] = e.peer.Addr
		weight := 0
		if e.isPassing && (e.state == "serving" || r.w.kind.static) {
			weight = e.weight
			members = append(members, hashring.Member{ID: e.peer.Member, Weight: weight})
		}
		fmt.Fprintf(&key, "%s.%d=%d@%s ", e.peer.Member, e.peer.Incarnation, weight, e.peer.Addr)
	}
	if v.key = key.String(); v.key == r.latest().key {
		return
	}
	v.ring = sharedRing(members)
	r.history = append(r.history, v)
	r.w.logf("registry: %s", v.key)
	for _, x := range r.watchers {
		r.publish(x, v)
	}
}

// watch has set called with each view, late.
func (r *registry) watch(p *process, set func(*view)) {
	r.watchers = slices.DeleteFunc(r.watchers, func(x *watcher) bool { return x.process.isDead })
	x := &watcher{p, set}
	r.watchers = append(r.watchers, x)
	r.publish(x, r.latest())
}

func (r *registry) publish(x *watcher, v *view) {
	d := one(r.w, 5, 5, 20, 20, 100, 400, 1500)
	r.deliver(x, v, time.Duration(d)*time.Millisecond)
	if r.w.chance(8) && r.w.kind.faults != nil && !r.w.isQuiet {
		r.showOld(x)
	}
}

// showOld has an older view come once more: the index went back. It heals later.
func (r *registry) showOld(x *watcher) {
	old := r.history[r.w.between(max(len(r.history)-5, 0), len(r.history)-1)]
	later := r.w.some(100*time.Millisecond, 2*time.Second)
	r.w.after(later, func() {
		if r.reaches(x) {
			r.w.tally.count("registry: an older view")
			x.process.do(func() { x.set(old) })
		}
	})
	r.w.after(later+r.w.some(50*time.Millisecond, 5*time.Second), func() { r.deliver(x, r.latest(), 0) })
}

func (r *registry) deliver(x *watcher, v *view, d time.Duration) {
	r.w.after(d, func() {
		switch {
		case x.process.isDead:
		case !r.reaches(x):
			r.deliver(x, r.latest(), 500*time.Millisecond)
		default:
			x.process.do(func() { x.set(v) })
			if v != r.latest() { // overtaken
				r.deliver(x, r.latest(), time.Second)
			}
		}
	})
}

func (r *registry) reaches(x *watcher) bool {
	return !r.isDown() && !r.w.network.isCut(registryPlace, x.process.place)
}

func (r *registry) isDown() bool { return r.w.network.isCut(registryPlace, registryPlace) }

// sharedRing returns the ring of members, one of each for all worlds: making one costs milliseconds.
func sharedRing(members []hashring.Member) *hashring.Ring {
	key := fmt.Sprint(members)
	if r, made := sharedRings.Load(key); made {
		return r.(*hashring.Ring)
	}
	r, err := hashring.New(members)
	if err != nil {
		panic(err)
	}
	first, _ := sharedRings.LoadOrStore(key, r)
	return first.(*hashring.Ring)
}

var sharedRings sync.Map // of *hashring.Ring, by the string of its members

func init() {
	homing.ReplaceWithout(func(r *hashring.Ring, id string) *hashring.Ring {
		return sharedRing(slices.DeleteFunc(r.Members(), func(m hashring.Member) bool { return m.ID == id }))
	})
}
