package homing_test

import (
	"slices"
	"time"

	"github.com/selvedge/selvedge/internal/homing"
)

// edge is the router of clients: it walks a user's successors by a view of its own, and its end is the end of all its sessions.
type edge struct {
	*process
	view  *view
	lines []line
}

// line is one session through an edge.
type line struct {
	s *session
	c *client
}

func (w *world) startEdge(name string) *edge {
	e := &edge{process: w.newProcess(name, name)}
	w.network.listeners[name] = e.process
	w.edges = append(w.edges, e)
	w.registry.watch(e.process, func(v *view) { e.view = v })
	return e
}

// connect finds a backend for a client; answer is called with the session, or nil.
func (e *edge) connect(c *client, answer func(*session)) {
	e.try(c, successors(e.view, c.user.name, 3), false, answer)
}

func successors(v *view, key string, most int) []string {
	var out []string
	if v == nil {
		return nil
	}
	for id := range v.ring.Successors(key) {
		if out = append(out, id); len(out) == most {
			break
		}
	}
	return out
}

func (e *edge) try(c *client, candidates []string, passedOver bool, answer func(*session)) {
	if len(candidates) == 0 {
		answer(nil)
		return
	}
	place := e.view.addr[candidates[0]]
	if place == "" { // gone since
		e.try(c, candidates[1:], passedOver, answer)
		return
	}
	over := false
	var pending *session
	e.w.network.call(e.process, place, "upgrade", 1500*time.Millisecond, func(callee *process, reply func(any)) {
		if callee.member == nil {
			return
		}
		before := len(callee.member.sessions)
		callee.member.accept(c.user, e, passedOver, func(s *session) {
			if over && s != nil {
				callee.member.hangUpLater(s)
			}
			reply(s)
		})
		if all := callee.member.sessions; len(all) > before {
			pending = all[len(all)-1]
		}
	}, func(reply any, _ homing.Failure, ok bool) {
		over = true
		if s, _ := reply.(*session); ok && s != nil {
			e.lines = append(e.lines, line{s, c})
			answer(s)
			return
		}
		if pending != nil { // the edge has given up; the backend sees the connection break
			e.w.network.tell(e.place, pending.at.process, func() { pending.close(hungUp) })
		}
		e.try(c, candidates[1:], true, answer)
	})
}

// hangUpLater closes a session whose edge has given it up meanwhile.
func (m *member) hangUpLater(s *session) {
	m.w.network.tell(s.edge.place, m.process, func() { s.close(hungUp) })
}

// closed takes in that a backend has closed a session, or that its connection broke.
func (e *edge) closed(s *session) {
	for i, l := range e.lines {
		if l.s == s {
			e.lines = slices.Delete(e.lines, i, i+1)
			e.w.after(e.w.network.delay(), func() { l.c.lost(s) })
			return
		}
	}
}

// hangUp is a client that leaves.
func (e *edge) hangUp(s *session) {
	e.do(func() {
		e.lines = slices.DeleteFunc(e.lines, func(l line) bool { return l.s == s })
		e.w.network.tell(e.place, s.at.process, func() { s.close(hungUp) })
	})
}

// die ends the edge, and with it all its sessions.
func (e *edge) die() {
	e.end()
	e.w.logf("%s ends", e.name)
	for _, l := range e.lines {
		e.w.network.tell(e.place, l.s.at.process, func() { l.s.close(hungUp) })
		e.w.after(e.w.network.delay(), func() { l.c.lost(l.s) })
	}
	e.w.edges = slices.DeleteFunc(e.w.edges, func(o *edge) bool { return o == e })
}
