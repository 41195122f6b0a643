package homing_test

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/selvedge/selvedge/internal/homing"
)

// member is one incarnation of a backend: it carries out what its node wants and holds sessions.
type member struct {
	*process
	self     homing.Peer
	node     *homing.Node
	effects  []homing.Effect
	isAtWork bool

	state    string // as it is to be registered
	weight   int
	view     *view
	sessions []*session // pending and open, in the order in which they came
	opened   int        // sessions so far

	memory   *homing.Memory[*record]
	order    *homing.Order
	backoff  map[homing.User]homing.Instant // until when a user's sessions are not moved
	budget   float64                        // of sessions that may be moved now
	isClosed bool                           // it was fenced or has left: its node is done
	buried   bool                           // while it hung
}

// newMemberID draws the id of a backend that was never there.
func (w *world) newMemberID() string {
	w.nextMember++
	return fmt.Sprintf("b%d", w.nextMember-1)
}

// startMember starts a backend at a place; "": its own.
func (w *world) startMember(id, place string) *member {
	if place == "" {
		place = "host-" + id
	}
	w.incarnations++
	m := &member{
		process: w.newProcess(fmt.Sprintf("%s.%d", id, w.incarnations), place),
		self:    homing.Peer{Process: homing.Process{Member: id, Incarnation: w.incarnations}, Addr: place},
		state:   "joining",
		weight:  1,
		order:   homing.NewOrder(64),
		backoff: make(map[homing.User]homing.Instant),
	}
	m.member = m
	m.memory = homing.NewMemory(w.kind.places, homing.Instant(messageKept), (*record).isBusy)
	w.members = append(w.members, m)
	w.network.listeners[place] = m.process
	w.logf("%s starts at %s", m.name, place)
	m.node = homing.New(homing.Config{Self: m.self, Users: m.users, TrustRefused: w.kind.trustRefused, MaxHeld: w.kind.held})
	m.work(m.node.Start)
	m.every(100*time.Millisecond, m.tick)
	m.every(3*time.Second, m.heartbeat)
	m.every(500*time.Millisecond, m.move)
	w.registry.watch(m.process, m.setView)
	return m
}

// users is Config.Users.
func (m *member) users() iter.Seq[homing.User] {
	return func(yield func(homing.User) bool) {
		for _, s := range m.sessions {
			if !yield(s.user.hash) {
				return
			}
		}
	}
}

// work makes a call to the node and carries out what follows, in order.
func (m *member) work(call func(now homing.Instant)) {
	if m.isDead {
		return
	}
	call(m.clock())
	m.effects = append(m.effects, m.node.Effects()...)
	if m.isAtWork {
		return
	}
	m.isAtWork = true
	for len(m.effects) > 0 && !m.isDead {
		e := m.effects[0]
		m.effects = m.effects[1:]
		m.w.tally.count("effect " + fmt.Sprintf("%T", e)[len("homing."):])
		m.carryOut(e)
	}
	m.isAtWork = false
}

func (m *member) tick() {
	m.work(m.node.Tick)
	if m.node.Held() > 0 {
		m.w.tally.count("tick while a push waits for a session on its way")
	}
	if m.buried && !m.isClosed && !m.node.IsFenced() && !m.node.IsJoining() {
		m.w.judge.fail("%s works on after it was buried", m.name)
	}
}

func (m *member) carryOut(e homing.Effect) {
	switch e := e.(type) {
	case homing.Register:
		m.register(func() { m.read() })
	case homing.ReadCatalog:
		m.read()
	case homing.Joined:
		m.w.logf("%s has joined", m.name)
		m.state = "serving"
		m.register(nil)
	case homing.Fenced:
		m.fenced(e)
	case homing.Send:
		m.send(e)
	case homing.Opened:
		if s := m.sessionOf(e.Opening); s != nil {
			s.open()
		}
	case homing.Unopened:
		if s := m.sessionOf(e.Opening); s != nil {
			s.close(unopened)
		}
	case homing.Look:
		q := e.Question
		m.look(q.Context.(*inquiry).payload, q.User, q.Deadline, func(a homing.Answer) {
			m.work(func(now homing.Instant) { m.node.Looked(now, q, a) })
		})
	case homing.Ask:
		m.ask(e)
	case homing.Settled:
		e.Question.Context.(*inquiry).settled(m, e.Question)
	case homing.Died:
		m.w.tally.count("death " + e.Cause.String())
		m.w.logf("%s holds %s.%d dead: %v", m.name, e.Process.Member, e.Process.Incarnation, e.Cause)
		m.w.judge.died(m, e)
	case homing.RingChanged:
	default:
		panic(fmt.Sprintf("unknown effect %T", e))
	}
}

// fenced closes what is here, in a moment, and comes back as another.
func (m *member) fenced(e homing.Fenced) {
	if m.isClosed { // it has left
		return
	}
	m.w.tally.count("fenced: " + e.Cause)
	m.w.logf("%s is fenced: %s", m.name, e.Cause)
	m.isClosed = true
	m.w.after(m.w.some(0, 200*time.Millisecond), func() {
		m.do(func() {
			m.exit()
			m.w.after(m.w.some(0, 300*time.Millisecond), func() { m.again() })
		})
	})
}

// exit ends the process: its sessions end with it.
func (m *member) exit() {
	if m.isDead {
		return
	}
	m.w.logf("%s ends", m.name)
	m.end()
	for len(m.sessions) > 0 {
		m.sessions[0].close(died)
	}
	for _, o := range m.w.living() { // connections to it break, where its host and the way are whole
		m.w.after(m.w.network.delay(), func() {
			if !m.w.network.isCut(m.place, o.place) {
				o.do(func() { o.work(func(now homing.Instant) { o.node.Suspect(now, m.place) }) })
			}
		})
	}
}

// again starts the backend anew in its place, unless something else has come there.
func (m *member) again() {
	if m.w.network.listeners[m.place] != nil || m.w.network.gone[m.place] {
		return
	}
	for _, o := range m.w.members {
		if o.self.Member == m.self.Member && !o.isDead {
			return
		}
	}
	next := m.w.startMember(m.self.Member, m.place)
	next.weight = m.weight
}

func (m *member) isHere() bool { return !m.isDead && !m.isClosed }

// register tells the registry of this process until it has heard.
func (m *member) register(then func()) {
	state, weight := m.state, m.weight
	m.w.network.call(m.process, registryPlace, "register", 2*time.Second, func(_ *process, reply func(any)) {
		m.w.registry.register(m.self, state, weight)
		reply(nil)
	}, func(_ any, _ homing.Failure, ok bool) {
		switch {
		case m.isClosed:
		case !ok:
			m.after(300*time.Millisecond, func() { m.register(then) })
		case then != nil:
			then()
		}
	})
}

func (m *member) heartbeat() {
	if m.isHere() {
		m.register(nil)
	}
}

func (m *member) read() {
	sent := m.clock()
	m.w.network.call(m.process, registryPlace, "read", 2*time.Second, func(r *process, reply func(any)) {
		reply(m.w.registry.catalog())
	}, func(all any, _ homing.Failure, ok bool) {
		if ok {
			m.work(func(now homing.Instant) { m.node.Catalog(now, sent, all.([]homing.Registration)) })
		}
	})
}

func (m *member) setView(v *view) {
	m.view = v
	m.work(func(now homing.Instant) { m.node.SetRing(now, v.ring, v.registered) })
}

func (m *member) send(e homing.Send) {
	m.w.tally.send(m.node, e)
	m.w.network.call(m.process, e.To.Addr, fmt.Sprintf("%T", e.Request)[len("homing."):], e.Timeout, func(callee *process, reply func(any)) {
		to := callee.member
		if to == nil || to.isDead {
			return
		}
		var answer homing.Reply
		ok := false
		to.work(func(now homing.Instant) { answer, ok = to.node.Handle(now, e.Caller, e.Request) })
		if ok && !to.isDead {
			m.w.tally.reply(e.Request, answer)
			reply(answer)
		}
	}, func(reply any, f homing.Failure, ok bool) {
		if ok {
			m.work(func(now homing.Instant) { m.node.Replied(now, e.Call, reply.(homing.Reply)) })
		} else {
			m.work(func(now homing.Instant) { m.node.Failed(now, e.Call, f) })
		}
	})
}

// drain has the sessions moved, then leaves and exits.
func (m *member) drain(then func()) {
	m.w.logf("%s drains", m.name)
	m.work(m.node.Drain)
	m.state = "draining"
	m.register(nil)
	pause := m.w.some(5*time.Millisecond, 150*time.Millisecond)
	var step func()
	step = func() {
		switch {
		case m.isClosed:
		case len(m.sessions) > 0:
			if s := m.sessions[m.w.rand.IntN(len(m.sessions))]; s.isOpen() && len(s.queue) == 0 {
				s.close(moved)
			}
			m.after(pause, step)
		default:
			m.work(m.node.Leave)
			m.isClosed = true
			m.w.registry.remove(m.self.Process)
			m.after(m.w.some(0, time.Second), func() {
				m.exit()
				then()
			})
		}
	}
	m.after(m.w.some(0, time.Second), step)
}

// move sends home those whose home expects them, at a pace.
func (m *member) move() {
	if !m.w.kind.moves || m.isClosed || !m.node.IsServing() {
		return
	}
	m.budget = min(m.budget+max(0.5, float64(len(m.sessions))*0.05/2), 3)
	now := m.clock()
	for _, s := range slices.Clone(m.sessions) {
		if m.budget < 1 {
			return
		}
		if !s.isOpen() || len(s.queue) > 0 || s.passedOver && !m.w.isQuiet || m.backoff[s.user.hash] > now || !m.node.MayMove(now, s.user.hash) {
			continue
		}
		m.budget--
		m.backoff[s.user.hash] = now + homing.Instant(10*time.Second)
		m.w.tally.count("session moved")
		s.close(moved)
	}
}

func (m *member) sessionOf(o *homing.Opening) *session {
	for _, s := range m.sessions {
		if s.opening == o {
			return s
		}
	}
	return nil
}

var errTooLate = errors.New("a later push of this sender has been here")
