package homing_test

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/selvedge/selvedge/internal/homing"
)

// kind is what a world is like.
type kind struct {
	name         string
	members      int // at most, at first
	seconds      int // of faults, at most
	faults       []fault
	trustRefused bool
	moves        bool
	static       bool // the registry is a list written by hand: no incarnations, no health
	places       int  // in each memory of messages
	held         int  // pushes that may wait for sessions on their way; 0: the default
}

// fault is one kind of trouble, with how often it comes.
type fault struct {
	name   string
	weight int
	do     func(w *world)
}

var (
	clean = []fault{{"drain", 2, drainOne}, {"join", 2, joinOne}, {"weight", 2, reweigh}}
	dirty = []fault{
		{"drain", 2, drainOne}, {"join", 2, joinOne}, {"weight", 1, reweigh},
		{"kill", 3, killOne}, {"vanish", 1, vanishOne}, {"hang", 3, hangOne}, {"hang long", 2, hangLong},
		{"cut", 3, cutPair}, {"isolate", 2, isolate}, {"split", 1, split}, {"cut from consul", 2, cutFromRegistry}, {"consul down", 1, registryDown},
		{"old view", 1, oldView}, {"edge dies", 1, edgeDies}, {"edge hangs", 1, edgeHangs}, {"edge cut", 2, edgeCut}, {"other at its place", 1, otherAtPlace},
		{"sender hangs", 1, senderHangs}, {"bury by hand", 1, buryByHand},
	}
	list = []fault{{"kill", 3, killOne}, {"hang", 2, hangOne}, {"cut", 2, cutPair}, {"drain", 1, drainOne}, {"isolate", 1, isolate}}
)

// mostMembers is how many ids of members there are at most: each makes rings of its own, which cost time.
const mostMembers = 7

// drawKind draws what a world is like; a few kinds come at fixed seeds, so that each number of seeds has its share of them.
func drawKind(r *rand.Rand, seed uint64) kind {
	k := kind{name: "mixed", members: 3 + r.IntN(4), seconds: 50, faults: dirty, trustRefused: r.IntN(5) > 0, moves: r.IntN(6) > 0, places: 4096}
	if r.IntN(10) == 0 {
		k.places = 8
	}
	switch seed % 20 {
	case 0:
		k.name, k.faults = "calm", nil
	case 1, 2:
		k.name, k.faults, k.places = "clean", clean, 4096
	case 3:
		k.name, k.faults, k.static, k.trustRefused = "static", list, true, true
	}
	return k
}

// fault has one thing happen, and the next later.
func (w *world) fault() {
	if w.now >= w.ending {
		return
	}
	total := 0
	for _, f := range w.kind.faults {
		total += f.weight
	}
	drawn := w.rand.IntN(total)
	for _, f := range w.kind.faults {
		if drawn -= f.weight; drawn < 0 {
			w.tally.count("fault " + f.name)
			w.logf("-- %s", f.name)
			f.do(w)
			break
		}
	}
	w.after(w.some(300*time.Millisecond, 4*time.Second), w.fault)
}

// living are the members whose process runs, hung or not.
func (w *world) living() []*member {
	return slices.DeleteFunc(slices.Clone(w.members), func(m *member) bool { return m.isDead || m.isClosed })
}

// anybody draws one of the living; nil where there is none.
func (w *world) anybody() *member {
	if list := w.living(); len(list) > 0 {
		return list[w.rand.IntN(len(list))]
	}
	return nil
}

func killOne(w *world) {
	m := w.anybody()
	if m == nil {
		return
	}
	w.logf("kill -9 %s", m.name)
	m.exit()
	if !w.kind.static && w.chance(20) { // for good
		return
	}
	w.after(time.Duration(one(w, 10, 50, 200, 1000, 4000, 12000))*time.Millisecond, m.again)
}

// vanishOne takes a host away without a reset; it may come back.
func vanishOne(w *world) {
	m := w.anybody()
	if m == nil || len(w.living()) < 3 {
		return
	}
	w.logf("the host of %s vanishes", m.name)
	w.network.gone[m.place] = true
	m.exit()
	if w.chance(60) {
		w.after(w.some(time.Second, 30*time.Second), func() {
			delete(w.network.gone, m.place)
			m.again()
		})
	}
}

func hangOne(w *world) {
	if m := w.anybody(); m != nil && !m.isHung {
		m.hang()
		w.after(w.some(300*time.Millisecond, 9*time.Second), m.wake)
	}
}

func hangLong(w *world) {
	if m := w.anybody(); m != nil && !m.isHung {
		m.hang()
		d := w.some(9*time.Second, 16*time.Second) // about the lease
		if w.chance(50) {
			d = w.some(25*time.Second, 45*time.Second) // about a burial
		}
		w.after(d, m.wake)
	}
}

func cutPair(w *world) {
	m, o := w.anybody(), w.anybody()
	if m == nil || m == o {
		return
	}
	d := w.some(300*time.Millisecond, 12*time.Second)
	w.network.cut(m.place, o.place, d)
	if w.chance(60) {
		w.network.cut(o.place, m.place, d)
	}
}

// isolate cuts one from its peers; and perhaps from all senders and edges, and from the registry.
func isolate(w *world) {
	m := w.anybody()
	if m == nil {
		return
	}
	d := w.some(300*time.Millisecond, 25*time.Second)
	both := func(place string) {
		w.network.cut(m.place, place, d)
		w.network.cut(place, m.place, d)
	}
	for _, o := range w.living() {
		if o != m && !w.chance(10) {
			both(o.place)
		}
	}
	if w.chance(30) {
		for _, e := range w.edges {
			both(e.place)
		}
	}
	if w.chance(30) {
		for _, s := range w.senders {
			both(s.place)
		}
	}
	if w.chance(50) {
		both(registryPlace)
	}
}

// split parts the members in two; one part has the registry.
func split(w *world) {
	d := w.some(time.Second, 35*time.Second)
	var far []string
	near := []string{registryPlace}
	for _, m := range w.living() {
		if w.chance(50) {
			far = append(far, m.place)
		} else {
			near = append(near, m.place)
		}
	}
	for _, a := range far {
		for _, b := range near {
			w.network.cut(a, b, d)
			w.network.cut(b, a, d)
		}
	}
	for w.chance(50) {
		joinOne(w)
		if w.nextMember >= mostMembers {
			return
		}
	}
}

func cutFromRegistry(w *world) {
	places := []string{w.edges[0].place, w.senders[0].place}
	for _, m := range w.living() {
		places = append(places, m.place, m.place)
	}
	place, d := places[w.rand.IntN(len(places))], w.some(500*time.Millisecond, 25*time.Second)
	w.network.cut(place, registryPlace, d)
	w.network.cut(registryPlace, place, d)
}

func registryDown(w *world) {
	w.network.cut(registryPlace, registryPlace, w.some(500*time.Millisecond, 20*time.Second))
}

func oldView(w *world) {
	w.registry.showOld(w.registry.watchers[w.rand.IntN(len(w.registry.watchers))])
}

func drainOne(w *world) {
	m := w.anybody()
	if m == nil || len(w.living()) < 2 {
		return
	}
	m.do(func() {
		if m.isClosed || m.state == "draining" {
			return
		}
		m.drain(func() {
			if w.kind.static || w.chance(70) {
				w.after(w.some(50*time.Millisecond, 3*time.Second), m.again)
			}
		})
	})
}

func joinOne(w *world) {
	if w.nextMember < mostMembers {
		w.startMember(w.newMemberID(), "")
	}
}

func reweigh(w *world) {
	for _, m := range w.living() {
		if id := m.self.Member; id == "b0" || id == "b1" && w.chance(50) {
			m.weight = w.between(1, 2)
			m.do(m.heartbeat)
			return
		}
	}
}

func edgeDies(w *world) {
	e := w.edges[w.rand.IntN(len(w.edges))]
	e.die()
	if len(w.edges) == 0 || w.chance(70) {
		w.after(w.some(50*time.Millisecond, 3*time.Second), func() { w.startEdge(e.place) })
	}
	if len(w.edges) == 0 {
		w.startEdge(e.place + "'")
	}
}

func edgeHangs(w *world) {
	e := w.edges[w.rand.IntN(len(w.edges))]
	if !e.isHung {
		e.hang()
		w.after(w.some(300*time.Millisecond, 9*time.Second), e.wake)
	}
}

// edgeCut cuts one edge from one backend alone.
func edgeCut(w *world) {
	e, m := w.edges[w.rand.IntN(len(w.edges))], w.anybody()
	if m == nil {
		return
	}
	d := w.some(time.Second, 20*time.Second)
	w.network.cut(e.place, m.place, d)
	if w.chance(60) {
		w.network.cut(m.place, e.place, d)
	}
}

func senderHangs(w *world) {
	s := w.senders[w.rand.IntN(len(w.senders))]
	if !s.isHung {
		s.hang()
		w.after(w.some(300*time.Millisecond, 6*time.Second), s.wake)
	}
}

// otherAtPlace has another backend take the place of one that dies.
func otherAtPlace(w *world) {
	m := w.anybody()
	if m == nil || w.nextMember >= mostMembers {
		return
	}
	m.exit()
	place := m.place
	w.after(w.some(20*time.Millisecond, 3*time.Second), func() {
		if w.network.listeners[place] == nil && !w.network.gone[place] {
			w.startMember(w.newMemberID(), place)
		}
	})
}

// buryByHand is an operator who knows that a host will not come back.
func buryByHand(w *world) {
	for _, m := range w.members {
		if !m.isDead || !w.network.gone[m.place] {
			continue
		}
		if by := w.anybody(); by != nil {
			by.do(func() {
				by.work(func(now homing.Instant) {
					for _, p := range by.node.Known() {
						if p.Process == m.self.Process {
							by.node.Bury(now, m.self.Member)
						}
					}
				})
			})
			return
		}
	}
}

// operate is an operator who buries the dead where the members cannot: where somebody who joins waits for them and nobody is left who
// could vote, or where as many are gone as are left. Where nobody is left at all, he starts one.
func (w *world) operate() {
	living := w.living()
	if !slices.ContainsFunc(w.members, func(m *member) bool { return !m.isDead }) {
		w.startMember("b0", "a new host")
	}
	for _, m := range living {
		dead := m.node.Waiting()
		if known := m.node.Known(); len(dead) == 0 && 2*len(living) <= len(known) {
			dead = known
		}
		for _, p := range dead {
			if slices.ContainsFunc(w.members, func(o *member) bool { return o.self == p && o.isDead }) {
				w.tally.count("operator: buried by hand what the members could not")
				w.logf("operator: %s is to bury %s", m.name, p.Member)
				m.work(func(now homing.Instant) { m.node.Bury(now, p.Member) })
			}
		}
	}
}

// endFaults heals everything. Whoever is dead for good stays dead.
func (w *world) endFaults() {
	w.logf("-- the faults are over")
	w.isQuiet = true
	clear(w.network.cuts)
	for _, m := range w.members {
		m.wake()
	}
	for _, e := range w.edges {
		e.wake()
	}
	for _, s := range w.senders {
		s.wake()
	}
	for later := 10 * time.Second; later <= 40*time.Second; later += 10 * time.Second {
		w.after(later, w.operate)
	}
	w.users[0].isAway = true
	for _, c := range w.users[0].clients {
		if c.session != nil {
			c.leave()
		}
	}
}
