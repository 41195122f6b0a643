package homing

import (
	"fmt"

	"github.com/selvedge/selvedge/hashring"
)

// ReplaceWithout has rings be derived another way: simulated worlds share theirs.
func ReplaceWithout(f func(r *hashring.Ring, id string) *hashring.Ring) { without = f }

// IsJoining tells whether it has not joined yet.
func (n *Node) IsJoining() bool { return n.phase == joining }

// Dead is how many members it remembers as dead.
func (n *Node) Dead() int { return len(n.dead) }

// Groups is how many messages to many users are remembered.
func (m *Memory[T]) Groups() int { return len(m.groups) }

// Held is how many pushes wait for sessions on their way.
func (n *Node) Held() int { return n.held }

// Rounds is how often a question had to look again; Proved whether it found a moment without a session.
func (q *Question) Rounds() int  { return q.rounds }
func (q *Question) Proved() bool { return q.proved }

// Gossip identifies whom it knows and holds dead.
func (n *Node) Gossip() uint64 { return n.gossip }

// Leftover names what a node in calm must not have; "" where all is well.
func (n *Node) Leftover() string {
	var out string
	add := func(some bool, format string, args ...any) {
		if some {
			out += fmt.Sprintf(format, args...) + "; "
		}
	}
	add(len(n.grants) > 1 || len(n.grants) == 1 && n.grants[0].ring != n.ring, "grants under %d rings", len(n.grants))
	add(len(n.noted) > 0, "%d users noted", len(n.noted))
	add(len(n.byOwner) > 0, "%d owners noted", len(n.byOwner))
	add(len(n.openings) > 0, "%d openings", len(n.openings))
	add(len(n.questions) > 0, "%d questions", len(n.questions))
	add(n.held != 0, "%d held", n.held)
	add(len(n.rings) > 16, "%d rings", len(n.rings))
	add(len(n.calls) > 2*len(n.order), "%d calls", len(n.calls))
	add(n.anyDied, "deaths not looked at")
	for _, p := range n.order {
		add(len(p.listed) > 0, "%d users listed for %s", len(p.listed), p.Member)
		add(len(p.toAnnounce) > 0, "%d users to announce to %s", len(p.toAnnounce), p.Member)
		add(p.draining, "%s drains", p.Member)
	}
	for _, g := range n.grants {
		add(len(g.until) > len(n.order), "grants to %d of %d peers", len(g.until), len(n.order))
	}
	return out
}
