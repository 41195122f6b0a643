package homing_test

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/selvedge/selvedge/internal/homing"
)

// sender pushes to users and asks about them, from a place of its own, by a view of its own.
type sender struct {
	*process
	view     *view
	sequence uint64
	busy     map[*user]bool
	past     []payload // some of those of the last seconds
}

// patience is the deadline of every call of a sender.
const patience = 5 * time.Second

func newSender(w *world, name string) *sender {
	s := &sender{process: w.newProcess(name, name), busy: make(map[*user]bool)}
	w.senders = append(w.senders, s)
	w.registry.watch(s.process, func(v *view) { s.view = v })
	s.next()
	return s
}

func (s *sender) next() {
	s.after(s.w.some(20*time.Millisecond, 250*time.Millisecond), func() {
		if s.w.isQuiet {
			return
		}
		s.next()
		u := s.w.users[s.w.rand.IntN(len(s.w.users))]
		switch {
		case s.w.chance(2):
			s.broadcast()
		case s.w.chance(5):
			s.list(u, s.w.chance(30))
		case !s.busy[u]:
			s.push(u)
		}
	})
}

// attempt is one question of a sender, until it is answered or the time is over.
type attempt struct {
	s        *sender
	payload  payload
	deadline homing.Instant
	tries    int
	then     func(result)
}

func (s *sender) push(u *user) {
	s.sequence++
	p := payload{pushing, u, fmt.Sprintf("%s-%d", s.name, s.sequence), s.sequence, s.name, s.sequence}
	if len(s.past) > 0 && s.w.chance(1) { // the same id with another text
		old := s.past[s.w.rand.IntN(len(s.past))]
		if !s.busy[old.user] {
			u, p.user, p.id = old.user, old.user, old.id
		}
	}
	if s.past = append(s.past, p); len(s.past) > 20 {
		s.past = s.past[1:]
	}
	s.busy[u] = true
	from := s.w.judge.stamp()
	s.ask(p, func(r result) {
		s.busy[u] = false
		s.w.judge.pushed(p, from, r)
	})
}

func (s *sender) list(u *user, kick bool) {
	from := s.w.judge.stamp()
	s.ask(payload{kind: listing, user: u}, func(r result) {
		s.w.judge.listed(u, from, r)
		if kick && r.certain {
			s.kick(u, r.sessions)
		}
	})
}

// kick closes the sessions that were listed, at whoever holds them.
func (s *sender) kick(u *user, ids []string) {
	for _, x := range slices.Clone(u.sessions) {
		if !slices.Contains(ids, x.id) {
			continue
		}
		id := x.id
		s.w.network.call(s.process, x.at.place, "kick", time.Second, func(callee *process, reply func(any)) {
			if callee.member == nil {
				return
			}
			for _, y := range slices.Clone(callee.member.sessions) {
				if y.id == id && y.isOpen() {
					s.w.tally.count("session kicked")
					y.close(kicked)
				}
			}
			reply(nil)
		}, func(any, homing.Failure, bool) {})
	}
}

func (s *sender) broadcast() {
	s.sequence++
	p := payload{kind: broadcasting, id: fmt.Sprintf("%s-%d", s.name, s.sequence), text: s.sequence, sender: s.name, sequence: s.sequence}
	from := s.w.judge.stamp()
	s.ask(p, func(r result) { s.w.judge.broadcast(p, from, r) })
}

// ask walks the successors until there is a certain answer, or the time is over.
func (s *sender) ask(p payload, then func(result)) {
	a := &attempt{s: s, payload: p, deadline: s.clock() + homing.Instant(patience), then: then}
	a.try()
}

func (a *attempt) try() {
	s := a.s
	remaining := a.deadline.Until(s.clock())
	if remaining <= 0 {
		a.then(result{})
		return
	}
	place := a.target()
	if place == "" {
		s.after(200*time.Millisecond, a.try)
		return
	}
	a.tries++
	s.w.network.call(s.process, place, "Question", min(remaining, 2500*time.Millisecond), func(callee *process, reply func(any)) {
		if m := callee.member; m != nil {
			m.inquire(a.payload, min(remaining, 2500*time.Millisecond), false, func(r result) { reply(r) })
		}
	}, func(reply any, _ homing.Failure, ok bool) {
		r, _ := reply.(result)
		refused := r.final != nil && !errors.Is(r.final, homing.ErrNotJoined)
		if ok && (r.certain || refused || a.payload.kind == broadcasting && r.final == nil) {
			s.w.tally.certain(a, r)
			a.then(r)
			return
		}
		s.after(s.w.some(10*time.Millisecond, 150*time.Millisecond), a.try)
	})
}

// target is the home at first, mostly; then its successors, and now and then anybody.
func (a *attempt) target() string {
	if a.s.view == nil {
		return ""
	}
	w := a.s.w
	if registered := a.s.view.registered; w.chance(30) || a.payload.user == nil {
		if len(registered) == 0 {
			return ""
		}
		return registered[w.rand.IntN(len(registered))].Addr
	}
	list := successors(a.s.view, a.payload.user.name, 3)
	if len(list) == 0 {
		return ""
	}
	return a.s.view.addr[list[a.tries%len(list)]]
}
