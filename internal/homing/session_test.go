package homing_test

import (
	"fmt"
	"slices"
	"time"

	"github.com/selvedge/selvedge/hashring"
	"github.com/selvedge/selvedge/internal/homing"
)

// messageKept is how long holders remember a message: longer than a request may be on its way where the network is cut for a while
// (keepalive), twice, wait in a process that stalls (the lease) and then go on for its deadline.
const messageKept = 2*keepalive + 10*time.Second + patience

type user struct {
	w        *world
	name     string
	hash     homing.User
	sessions []*session // that were ever open
	isAway   bool       // for good, once it is quiet
	clients  []*client
}

func newUser(w *world, name string) *user {
	return &user{w: w, name: name, hash: homing.User((*hashring.Ring)(nil).Hash(name))}
}

// session is one connection of a device, at one backend.
type session struct {
	id         string
	user       *user
	at         *member
	edge       *edge
	opening    *homing.Opening
	answer     func(opened bool)
	passedOver bool // the edge tried the owner and could not reach it
	isSlow     bool
	freeAt     homing.Instant // when a slow one has read what it has
	queue      []func(took bool)

	isGone             bool
	openedAt, closedAt uint64            // stamps; 0: not yet
	took               map[string]uint64 // the text, by message id
	lastOf             map[string]uint64 // sequence by sender
}

// cause is why a session closed.
type cause int

const (
	unopened cause = iota
	hungUp         // by the client or its edge
	moved
	kicked
	died
)

// accept begins a session: answer is called once, unless the process dies first.
func (m *member) accept(u *user, e *edge, passedOver bool, answer func(s *session)) {
	m.opened++
	s := &session{
		id: fmt.Sprintf("%s/%d", m.name, m.opened), user: u, at: m, edge: e, passedOver: passedOver, isSlow: m.w.chance(10),
		took: make(map[string]uint64), lastOf: make(map[string]uint64),
	}
	s.answer = func(opened bool) {
		s.answer = nil
		if opened {
			answer(s)
		} else {
			answer(nil)
		}
	}
	if m.isClosed {
		s.answer(false)
		return
	}
	m.sessions = append(m.sessions, s)
	m.work(func(now homing.Instant) { s.opening = m.node.Open(now, u.hash) })
	if s.opening == nil && s.closedAt == 0 && !m.isDead {
		s.close(unopened)
	}
	m.after(2*time.Second, func() { // longer than the node may take; it may have hung, and then it must tick first
		m.after(time.Second, func() {
			if s.answer != nil && !m.node.IsFenced() {
				m.w.judge.fail("%s: session %s hears nothing of its 101", m.name, s.id)
			}
		})
	})
}

// has tells whether the session took this message, and with this text.
func (s *session) has(p payload) bool {
	text, took := s.took[p.id]
	return took && text == p.text
}

func (s *session) isOpen() bool { return s.openedAt > 0 && s.closedAt == 0 }

func (s *session) open() {
	s.openedAt = s.at.w.judge.stamp()
	s.user.sessions = append(s.user.sessions, s)
	s.at.w.logf("%s: session %s of %s opens", s.at.name, s.id, s.user.name)
	s.answer(true)
}

// close ends the session for whatever cause; the client hears of it.
func (s *session) close(why cause) {
	m := s.at
	if s.isGone {
		return
	}
	s.isGone = true
	if s.closedAt == 0 { // not buried before
		s.closedAt = m.w.judge.stamp()
	}
	m.sessions = slices.DeleteFunc(m.sessions, func(o *session) bool { return o == s })
	for len(s.queue) > 0 {
		s.next(false)
	}
	m.w.logf("%s: session %s of %s closes (%d)", m.name, s.id, s.user.name, why)
	if why != died {
		if s.opening != nil && s.openedAt == 0 && why == hungUp {
			m.w.tally.count("opening cancelled")
			m.node.Cancel(s.opening)
		}
		m.work(func(now homing.Instant) { m.node.Closed(now, s.user.hash, why == moved) })
	}
	switch {
	case s.answer != nil && why != died:
		s.answer(false)
	case s.edge != nil && why != hungUp:
		m.w.network.tell(m.place, s.edge.process, func() { s.edge.closed(s) })
	}
}

// deliver hands a message to the session; done is told whether it was taken, at once or later.
func (s *session) deliver(p payload, done func(took bool)) {
	m := s.at
	take := func(took bool) {
		if took {
			m.w.judge.took(s, p)
		}
		done(took)
	}
	if !s.isSlow {
		take(true)
		return
	}
	s.freeAt = max(s.freeAt, m.clock()) + homing.Instant(m.w.some(10*time.Millisecond, 700*time.Millisecond))
	s.queue = append(s.queue, take)
	m.after(s.freeAt.Until(m.clock()), func() {
		if len(s.queue) > 0 {
			s.next(true)
		}
	})
}

func (s *session) next(took bool) {
	take := s.queue[0]
	s.queue = s.queue[1:]
	take(took)
}
