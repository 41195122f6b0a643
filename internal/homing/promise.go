package homing

import (
	"time"

	"github.com/selvedge/selvedge/hashring"
)

// grant is what this process has promised under one ring: to whom, and until when.
type grant struct {
	ring  *hashring.Ring
	until map[Process]Instant
}

// slack is the part of a lease by which the promiser keeps it longer than the promised counts on it, for clocks of unequal speed.
const slack = 20

// promise answers a poll of p.
func (n *Node) promise(now Instant, p *peer, seen uint64) *Promise {
	p.processed = max(p.processed, seen)
	n.version++
	var g *grant
	for _, old := range n.grants {
		if old.ring == n.ring {
			g = old
		}
	}
	if g == nil {
		g = &grant{n.ring, make(map[Process]Instant)}
		n.grants = append(n.grants, g)
	}
	g.until[p.Process] = now.plus(n.cfg.Lease + n.cfg.Lease/slack)
	out := &Promise{Sequence: n.version, Ring: n.ring, Silent: n.silence(now)}
	if seen > 0 && p.changed <= seen {
		out.Unchanged = true
		return out
	}
	out.Users = make([]User, 0, len(n.byOwner[p.Member]))
	for u := range n.byOwner[p.Member] {
		out.Users = append(out.Users, u)
	}
	return out
}

// promised takes in p's reply to a poll sent at that time.
func (n *Node) promised(now, sent Instant, p *peer, r *Promise) {
	p.sequence = r.Sequence // one poll at a time: it is later than the last
	p.ring, p.until = n.same(r.Ring), sent.plus(n.cfg.Lease)
	p.silent, p.silentAt = r.Silent, now
	if r.Unchanged {
		return
	}
	listed := make(map[User]uint64, len(r.Users))
	for _, u := range r.Users {
		listed[u] = r.Sequence
	}
	for u, sequence := range p.listed { // announced after the reply was made
		if sequence > r.Sequence {
			listed[u] = sequence
		}
	}
	p.listed = listed
}

// announced takes in that p is about to open sessions of our users. Where a later reply has been processed already, that one said
// who is still there.
func (n *Node) announced(p *peer, r Announce) {
	if r.Sequence <= p.sequence {
		return
	}
	if p.listed == nil {
		p.listed = make(map[User]uint64, len(r.Users))
	}
	for _, u := range r.Users {
		p.listed[u] = r.Sequence
	}
}

// covers tells whether p has promised to open no session of u without our word, and has none now. owner is a memory of the last
// ring's.
func (p *peer) covers(now Instant, self string, u User, memo *ownerMemo) bool {
	if p.until <= now || memo.owner(p.ring, u) != self {
		return false
	}
	_, listed := p.listed[u]
	return !listed
}

// ownerMemo saves asking the same ring again: in calm all peers promise under one.
type ownerMemo struct {
	ring *hashring.Ring
	id   string
}

func (m *ownerMemo) owner(r *hashring.Ring, u User) string {
	if r != m.ring {
		m.ring, m.id = r, r.OwnerOfHash(uint64(u))
	}
	return m.id
}

// uncovered returns who must be asked for u before anything certain can be said.
func (n *Node) uncovered(now Instant, u User) (out []*peer) {
	var memo ownerMemo
	for _, p := range n.order {
		if !p.covers(now, n.cfg.Self.Member, u, &memo) {
			out = append(out, p)
		}
	}
	return out
}

// owed returns the processes whose acknowledgement a session of u needs: they hold a promise, under whichever ring, that there is
// none without it.
func (n *Node) owed(now Instant, u User, acked map[Process]struct{}) (out []Process) {
	for _, g := range n.grants {
		owner := g.ring.OwnerOfHash(uint64(u))
		if owner == n.cfg.Self.Member {
			continue
		}
		for _, p := range n.order {
			if until, granted := g.until[p.Process]; granted && p.Member == owner && until >= now {
				if _, done := acked[p.Process]; !done {
					out = append(out, p.Process)
				}
			}
		}
	}
	return out
}

func (n *Node) forgetGrants(now Instant) {
	kept := n.grants[:0]
	for _, g := range n.grants {
		for p, until := range g.until {
			if until < now || n.isDead(p) {
				delete(g.until, p)
			}
		}
		if len(g.until) > 0 {
			kept = append(kept, g)
		}
	}
	clear(n.grants[len(kept):])
	n.grants = kept
}

// pollDue polls whoever is due, each peer with one call at a time.
func (n *Node) pollDue(now Instant) {
	for _, p := range n.order {
		if p.polling || now < p.nextPoll {
			continue
		}
		p.polling = true
		p.nextPoll = now.plus(n.pollEvery())
		n.send(now, p, Poll{Seen: p.sequence})
	}
}

// pollEvery is shorter while somebody is silent: a burial needs reports of the last second.
func (n *Node) pollEvery() time.Duration {
	if n.isWatching {
		return n.cfg.Poll / 3
	}
	return n.cfg.Poll
}

// Suspect is told that the connection to addr broke, which may be the death of who was there: the next poll goes out now.
func (n *Node) Suspect(now Instant, addr string) {
	if !n.wake(now) {
		return
	}
	for _, p := range n.order {
		if p.Addr == addr {
			p.nextPoll = now
		}
	}
	n.pollDue(now)
}
