package homing_test

import (
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/selvedge/selvedge/hashring"
)

// script is a small world in which nothing is left to chance: every message takes a millisecond, unless the test says otherwise.
type script struct {
	*world
	t    *testing.T
	lags []func(message) (time.Duration, bool)
}

// newScript starts so many members, b0, b1, ..., and waits until they are calm.
func newScript(t *testing.T, members int, adjust ...func(*kind)) *script {
	t.Helper()
	var log io.Writer
	if testing.Verbose() {
		log = t.Output()
	}
	s := &script{world: emptyWorld(1, log), t: t}
	s.kind = kind{name: "script", trustRefused: true, places: 64}
	for _, a := range adjust {
		a(&s.kind)
	}
	s.network.lag = func(m message) time.Duration {
		for _, lag := range slices.Backward(s.lags) {
			if d, known := lag(m); known {
				return d
			}
		}
		if s.network.isCut(m.from, m.to) {
			return lost
		}
		return time.Millisecond
	}
	for range members {
		s.startMember(s.newMemberID(), "")
	}
	s.run(5 * time.Second)
	for _, m := range s.members {
		if !m.node.IsServing() {
			t.Fatalf("%s does not serve", m.name)
		}
	}
	t.Cleanup(func() {
		for _, wrong := range s.judge.wrong {
			t.Error(wrong)
		}
	})
	return s
}

func (s *script) run(d time.Duration) { s.runUntil(s.now + d) }

// until runs until something is so; the test fails where it takes longer than it should.
func (s *script) until(limit time.Duration, what string, is func() bool) {
	s.t.Helper()
	for end := s.now + limit; !is(); s.run(time.Millisecond) {
		if s.now > end {
			s.t.Fatalf("after %v still not: %s", limit, what)
		}
	}
}

// late has messages take longer, or get lost; the last one that was said counts.
func (s *script) late(d time.Duration, which func(message) bool) {
	s.lags = append(s.lags, func(m message) (time.Duration, bool) { return d, which(m) })
}

func (s *script) onTime() { s.lags = nil }

// cutOff cuts two places from each other.
func (s *script) cutOff(d time.Duration, a, b string) {
	s.network.cut(a, b, d)
	s.network.cut(b, a, d)
}

// between tells of messages between two members, either way.
func between(a, b *member) func(message) bool {
	return func(m message) bool {
		return m.from == a.place && m.to == b.place || m.from == b.place && m.to == a.place
	}
}

// m is the member's last incarnation.
func (s *script) m(id string) *member {
	for _, m := range slices.Backward(s.members) {
		if m.self.Member == id {
			return m
		}
	}
	s.t.Fatalf("no member %s", id)
	return nil
}

// userOf returns a new user whose owners are these: of the ring of all members, of the one without the first owner, and so on.
func (s *script) userOf(owners ...string) *user {
	ring := s.registry.latest().ring
	for i := range 10_000 {
		name := fmt.Sprintf("user-%d-%d", len(s.users), i)
		if list := slices.Collect(ring.Successors(name)); len(list) >= len(owners) && slices.Equal(list[:len(owners)], owners) {
			u := newUser(s.world, name)
			s.users = append(s.users, u)
			return u
		}
	}
	s.t.Fatalf("no user of %v", owners)
	return nil
}

// see has a member see this ring: members of weight 1. Everybody is still registered.
func (s *script) see(m *member, ids ...string) {
	var members []hashring.Member
	for _, id := range ids {
		members = append(members, hashring.Member{ID: id, Weight: 1})
	}
	v := *s.registry.latest()
	v.ring = sharedRing(members)
	m.setView(&v)
}

// opening begins a session; result tells later what became of it, nil where it was refused.
func (s *script) opening(m *member, u *user) (result func() (x *session, over bool)) {
	var x *session
	over := false
	m.accept(u, nil, false, func(opened *session) { x, over = opened, true })
	return func() (*session, bool) { return x, over }
}

// open opens a session.
func (s *script) open(m *member, u *user) *session {
	s.t.Helper()
	result := s.opening(m, u)
	s.until(3*time.Second, "a session opens", func() bool { _, over := result(); return over })
	x, _ := result()
	if x == nil {
		s.t.Fatalf("%s refused a session of %s", m.name, u.name)
	}
	return x
}

// scriptCall is one call of a sender, without retries.
type scriptCall struct {
	payload payload
	from    uint64
	result  result
	over    bool
}

// begin has m asked something by a sender.
func (s *script) begin(m *member, p payload) *scriptCall {
	c := &scriptCall{payload: p, from: s.judge.stamp()}
	m.inquire(p, patience, false, func(r result) {
		c.result, c.over = r, true
		switch p.kind {
		case pushing:
			s.judge.pushed(p, c.from, r)
		case listing:
			s.judge.listed(p.user, c.from, r)
		case broadcasting:
			s.judge.broadcast(p, c.from, r)
		}
	})
	return c
}

func (s *script) await(c *scriptCall) result {
	s.t.Helper()
	s.until(patience+time.Second, "the call ends", func() bool { return c.over })
	return c.result
}

// ask asks and waits for the answer.
func (s *script) ask(m *member, p payload) result {
	s.t.Helper()
	return s.await(s.begin(m, p))
}

// message makes a push; each has a sender of its own, so that none is late.
func (s *script) message(u *user, id string) payload {
	return payload{kind: pushing, user: u, id: id, text: 1, sender: "sender of " + id}
}

// delivered fails the test unless the outcome is DELIVERED to just these sessions, certain.
func (s *script) delivered(r result, to ...*session) {
	s.t.Helper()
	var ids []string
	for _, x := range to {
		ids = append(ids, x.id)
	}
	slices.Sort(ids)
	if got := slices.Sorted(slices.Values(r.sessions)); !r.certain || !slices.Equal(got, ids) {
		s.t.Fatalf("certain %v, %v (%v, silent %v); want %v for certain", r.certain, got, r.final, r.silent, ids)
	}
}

// unsettled fails the test unless the outcome is an error.
func (s *script) unsettled(r result) {
	s.t.Helper()
	if r.certain {
		s.t.Fatalf("certain, %v; want an error", r.sessions)
	}
}

// sees runs until a message like that has been sent.
func (s *script) sees(limit time.Duration, which func(message) bool) {
	s.t.Helper()
	seen := false
	s.lags = append(s.lags, func(m message) (time.Duration, bool) {
		seen = seen || which(m)
		return 0, false
	})
	s.until(limit, "a message is sent", func() bool { return seen })
}
