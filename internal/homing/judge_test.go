package homing_test

import (
	"fmt"
	"slices"

	"github.com/selvedge/selvedge/internal/homing"
)

// judge holds what was said against what was so. Its time is a count of everything that could matter, so that no two things happen at
// once: a session is open from the stamp of its 101 until the stamp of its end, as the backends know it, or its process's burial.
type judge struct {
	w     *world
	last  uint64
	wrong []string
}

func (j *judge) stamp() uint64 {
	j.last++
	return j.last
}

func (j *judge) fail(format string, args ...any) {
	j.wrong = append(j.wrong, fmt.Sprintf("%.3f s: ", j.w.now.Seconds())+fmt.Sprintf(format, args...))
	j.w.logf("WRONG: %s", j.wrong[len(j.wrong)-1])
}

// isLost tells that there is nothing more to learn from this world.
func (j *judge) isLost() bool { return len(j.wrong) >= 3 }

// took notes that a session took a message.
func (j *judge) took(s *session, p payload) {
	j.w.logf("%s: session %s of %s takes %s", s.at.name, s.id, s.user.name, p.id)
	if s.openedAt == 0 || s.isGone { // one that was buried may still write what it had
		j.fail("session %s took %s while it was not open", s.id, p.id)
	}
	if _, before := s.took[p.id]; before {
		j.fail("session %s took %s twice", s.id, p.id)
	}
	s.took[p.id] = p.text
	if p.kind == pushing {
		if p.sequence < s.lastOf[p.sender] {
			j.fail("session %s took %s after %d of the same sender", s.id, p.id, s.lastOf[p.sender])
		}
		s.lastOf[p.sender] = p.sequence
	}
}

// throughout are the sessions of a user that were open all the time from then until now.
func (j *judge) throughout(u *user, from uint64) (out []*session) {
	for _, s := range u.sessions {
		if s.openedAt < from && s.closedAt == 0 {
			out = append(out, s)
		}
	}
	return out
}

// hadGap tells whether there was a moment since then without a session of the user.
func (j *judge) hadGap(u *user, from uint64) bool {
	covered := from // there was always one until then
	for covered <= j.last {
		next := covered
		for _, s := range u.sessions {
			if s.openedAt <= covered && (s.closedAt > next || s.closedAt == 0) {
				if next = s.closedAt; next == 0 {
					return false
				}
			}
		}
		if next == covered {
			return true
		}
		covered = next
	}
	return false
}

func (j *judge) pushed(p payload, from uint64, r result) {
	j.stamp()
	j.w.tally.pushed(j.w.kind, r)
	j.w.logf("%s: push %s to %s: certain %v, %d sessions, %v", p.sender, p.id, p.user.name, r.certain, len(r.sessions), r.final)
	if r.hops > 2 {
		j.fail("push %s passed %d members", p.id, r.hops)
	}
	if !r.certain {
		return
	}
	if r.final != nil {
		j.fail("push %s is certain and refused: %v", p.id, r.final)
	}
	if len(r.sessions) == 0 {
		if !j.hadGap(p.user, from) {
			j.fail("push %s: OFFLINE by %s, but %s had a session all the time", p.id, r.at.name, p.user.name)
		}
		return
	}
	j.counted(p.user, r.sessions, func(s *session) bool { return s.has(p) }, "push "+p.id)
	for _, s := range j.throughout(p.user, from) {
		if !s.has(p) || !slices.Contains(r.sessions, s.id) {
			j.fail("push %s: DELIVERED(%d) by %s, but session %s of %s was left out (took it: %v)",
				p.id, len(r.sessions), r.at.name, s.id, p.user.name, s.has(p))
		}
	}
}

// counted checks that what was counted is so, and each once.
func (j *judge) counted(u *user, ids []string, is func(*session) bool, what string) {
	for i, id := range ids {
		at := slices.IndexFunc(u.sessions, func(s *session) bool { return s.id == id })
		if at < 0 || !is(u.sessions[at]) || slices.Contains(ids[:i], id) {
			j.fail("%s: session %s was counted wrongly", what, id)
		}
	}
}

func (j *judge) listed(u *user, from uint64, r result) {
	now := j.stamp()
	if !r.certain {
		return
	}
	j.w.tally.count("presence certain")
	j.counted(u, r.sessions, func(s *session) bool { return s.openedAt <= now && (s.closedAt == 0 || s.closedAt >= from) }, "presence")
	for _, s := range j.throughout(u, from) {
		if !slices.Contains(r.sessions, s.id) {
			j.fail("presence of %s by %s: session %s is missing", u.name, r.at.name, s.id)
		}
	}
	if len(r.sessions) == 0 && !j.hadGap(u, from) {
		j.fail("presence of %s by %s: nobody, but there was a session all the time", u.name, r.at.name)
	}
}

func (j *judge) broadcast(p payload, from uint64, r result) {
	j.stamp()
	if r.at == nil || r.final != nil {
		j.w.tally.count("broadcast failed")
		return
	}
	j.w.tally.count("broadcast answered")
	if len(r.silent) > 0 {
		j.w.tally.count("broadcast that names the silent")
	}
	for _, u := range j.w.users {
		j.counted(u, slices.DeleteFunc(slices.Clone(r.sessions), func(id string) bool {
			return !slices.ContainsFunc(u.sessions, func(s *session) bool { return s.id == id })
		}), func(s *session) bool { return s.has(p) }, "broadcast "+p.id)
		for _, s := range j.throughout(u, from) {
			if !s.has(p) && !slices.Contains(r.silent, s.at.self.Process) && (r.certain || !s.isSlow) {
				j.fail("broadcast %s by %s: session %s was left out, and %s was not named", p.id, r.at.name, s.id, s.at.name)
			}
		}
	}
}

// died checks that nobody is held dead who lives. Whoever hangs, or is about to close its sessions, is dead once it is buried; one that
// hangs must find this true. Who has not joined yet holds nothing, and will be told.
func (j *judge) died(by *member, e homing.Died) {
	for _, m := range j.w.members {
		if m.self.Member != e.Process.Member || m.self.Incarnation > e.Process.Incarnation || m.isDead {
			continue
		}
		hasLeft := m.isClosed || e.Cause == homing.SaidGoodbye && len(m.sessions) == 0 && m.state != "serving"
		switch {
		case m.node.IsFenced():
		case hasLeft, m.node.IsJoining():
			m.buried = true
			continue
		case !m.isHung, e.Cause == homing.Refused, e.Cause == homing.SaidGoodbye:
			j.fail("%s holds %s dead (%v), which lives", by.name, m.name, e.Cause)
			continue
		default:
			j.w.tally.count("buried while it hung")
		}
		m.buried = true
		for _, s := range m.sessions {
			if s.isOpen() {
				s.closedAt = j.stamp()
			}
		}
	}
}
