package homing

import (
	"slices"
	"time"

	"github.com/selvedge/selvedge/hashring"
)

// maxDead bounds the memory of the dead; the longest dead are forgotten first. One that comes back after that is learned as if it
// were new, and has looked by then whether it was cut off.
const maxDead = 1024

// peer is what this process knows of another.
type peer struct {
	Peer
	draining bool
	joining  bool    // at its last answer
	greeted  bool    // it acknowledged our hello
	contact  Instant // when it was last heard of, either way
	answered Instant // when the last call that it answered was sent

	// what it promised us
	sequence uint64
	ring     *hashring.Ring
	until    Instant
	listed   map[User]uint64 // our users that it holds or opens, with the sequence of the reply or announcement that said so

	// what we told it
	processed uint64 // sequence of our last reply that it has processed
	changed   uint64 // version at the last change of what we list for it

	// calls to it
	polling    bool
	nextPoll   Instant
	announcing bool
	toAnnounce map[User]struct{}

	// what it says of others
	silent   map[string]time.Duration
	silentAt Instant

	absentSince Instant // by the registry, read again and again; never: it is there, or was not read
}

type burial struct {
	incarnation uint64 // the highest that is dead
	at          Instant
}

func (n *Node) isDead(p Process) bool {
	b, some := n.dead[p.Member]
	return some && b.incarnation >= p.Incarnation
}

// learn takes note that p is there, unless it is known to be dead. A later incarnation is the death of the ones before it.
func (n *Node) learn(now Instant, p Peer) {
	if p.Member == n.cfg.Self.Member {
		if p.Incarnation > n.cfg.Self.Incarnation {
			n.superseded = true
			n.fence("a later incarnation of this member is there")
		}
		return
	}
	if n.isDead(p.Process) {
		return
	}
	if old := n.known[p.Member]; old != nil {
		if old.Incarnation >= p.Incarnation {
			return
		}
		n.kill(now, old.Process, Succeeded)
	}
	k := &peer{Peer: p, contact: now, answered: never, absentSince: never, nextPoll: now}
	n.known[p.Member] = k
	at, _ := slices.BinarySearchFunc(n.order, k, func(a, b *peer) int { return byMember(a.Process, b.Process) })
	n.order = slices.Insert(n.order, at, k)
	n.regossip()
	n.rering(now)
}

// kill holds p, and whatever incarnation was before it, dead from now on.
func (n *Node) kill(now Instant, p Process, cause Death) {
	if p.Member == n.cfg.Self.Member || n.isDead(p) {
		return
	}
	n.dead[p.Member] = burial{p.Incarnation, now}
	if len(n.dead) > maxDead {
		n.forgetDead()
	}
	if k := n.known[p.Member]; k != nil && k.Incarnation <= p.Incarnation {
		delete(n.known, p.Member)
		n.order = slices.DeleteFunc(n.order, func(o *peer) bool { return o == k })
		n.anyDied = true
	}
	n.regossip()
	n.emit(Died{p, cause})
	n.rering(now)
}

func (n *Node) forgetDead() {
	oldest, at := "", Instant(0)
	for member, b := range n.dead {
		if oldest == "" || b.at < at || b.at == at && member < oldest {
			oldest, at = member, b.at
		}
	}
	delete(n.dead, oldest)
}

// merge takes over what another says of who is there and who is dead. The dead come first.
func (n *Node) merge(now Instant, c Callee) {
	for _, d := range c.Dead {
		if d.Member == n.cfg.Self.Member && d.Incarnation >= n.cfg.Self.Incarnation {
			n.fence("others hold this incarnation dead")
			return
		}
		n.kill(now, d, Heard)
	}
	for _, p := range c.Known {
		n.learn(now, p)
	}
}

// alive returns what is known of p; nil where it is dead, or another incarnation is known.
func (n *Node) alive(p Process) *peer {
	if k := n.known[p.Member]; k != nil && k.Incarnation == p.Incarnation {
		return k
	}
	return nil
}

func (n *Node) regossip() { n.gossip = digest(n.known, n.cfg.Self.Process, n.dead) }

// caller is the head of a request to p.
func (n *Node) caller(p Process) Caller {
	return Caller{Peer: n.cfg.Self, Callee: p, Gossip: n.gossip}
}

// Admit looks at the head of a request and returns the head of the reply, which says whether the request may be looked at. ok is
// false where there must be no reply at all: this process is fenced, and may still have sessions to close.
func (n *Node) Admit(now Instant, c Caller) (callee Callee, ok bool) {
	if !n.wake(now) {
		return Callee{}, false
	}
	callee = Callee{Peer: n.cfg.Self, Draining: n.phase == draining}
	self := n.cfg.Self.Process
	switch {
	case c.Callee.Member != self.Member, c.Callee.Incarnation != 0 && c.Callee.Incarnation != self.Incarnation:
		callee.Refusal = NotMe
	case n.isDead(c.Peer.Process):
		callee.Refusal = HeldDead
	case c.Peer.Member == self.Member: // ourselves, by a wrong address, or a second process with our id
		callee.Refusal = HeldDead
		if c.Peer.Incarnation > self.Incarnation {
			n.learn(now, c.Peer)
			return Callee{}, false
		}
	default:
		n.learn(now, c.Peer)
		if p := n.alive(c.Peer.Process); p != nil {
			p.contact = now
		}
		if n.phase == joining {
			callee.Refusal = NotJoined
		}
	}
	if callee.Refusal != HeldDead && c.Gossip != n.gossip {
		callee.Known = n.Known()
		for member, b := range n.dead {
			callee.Dead = append(callee.Dead, Process{member, b.incarnation})
		}
		slices.SortFunc(callee.Dead, byMember)
	}
	n.releaseDead(now)
	return callee, n.phase < fenced
}

// heard takes in the head of a reply from to, called at sent. It returns whom the answer is from; nil where there is no answer.
func (n *Node) heard(now, sent Instant, to Process, c Callee) *peer {
	switch c.Refusal {
	case HeldDead:
		n.fence("a peer holds this incarnation dead")
		return nil
	case NotMe:
		if n.cfg.TrustRefused && c.Peer.Process != to {
			n.kill(now, to, Refused) // somebody else listens at its address
		}
		return nil
	case Unknown:
		return nil
	}
	n.merge(now, c)
	n.learn(now, c.Peer)
	p := n.alive(c.Peer.Process)
	if n.phase >= fenced || p == nil || p.Member != to.Member {
		return nil
	}
	p.contact = now
	p.answered = max(p.answered, sent)
	p.joining = c.Refusal == NotJoined
	if p.draining != c.Draining {
		p.draining = c.Draining
		n.rering(now)
	}
	return p
}

// without is replaced by the simulation, whose worlds share the rings that they derive.
var without = (*hashring.Ring).Without

// rering computes the ring to decide by. Leaving a member out takes milliseconds where there are a hundred, and they may die one after
// the other, so it goes on from the ring before where it can.
func (n *Node) rering(now Instant) {
	var out []string
	for _, m := range n.snapshot.Members() {
		if m.Weight > 0 && !n.belongs(m.ID) {
			out = append(out, m.ID)
		}
	}
	ring, before := n.snapshot, []string(nil)
	if n.derivedFrom == n.snapshot && slices.Equal(n.leftOut, out) {
		return
	}
	if n.derivedFrom == n.snapshot && !slices.ContainsFunc(n.leftOut, func(id string) bool { return !slices.Contains(out, id) }) {
		ring, before = n.ring, n.leftOut
	}
	for _, id := range out {
		if !slices.Contains(before, id) {
			ring = without(ring, id)
		}
	}
	ring = n.same(ring)
	n.derivedFrom, n.leftOut = n.snapshot, out
	if ring == n.ring {
		return
	}
	n.ring, n.ringSince = ring, now
	n.renote()
	n.emit(RingChanged{})
}

// belongs tells whether a member of the snapshot's ring is to own users: the registry may lag behind what is known of it.
func (n *Node) belongs(member string) bool {
	if member == n.cfg.Self.Member {
		return n.phase == serving
	}
	incarnation, takesPart := n.incarnations[member]
	if !takesPart {
		return true
	}
	p := n.known[member]
	return p != nil && !p.draining && (incarnation == 0 || p.Incarnation == 0 || incarnation == p.Incarnation)
}

// same returns the ring known before that equals r, so that equal rings can be told by their pointers.
func (n *Node) same(r *hashring.Ring) *hashring.Ring {
	for _, known := range n.rings {
		if known == r || known.Digest() == r.Digest() {
			return known
		}
	}
	if n.rings = append(n.rings, r); len(n.rings) > 16 {
		n.rings = slices.Delete(n.rings, 0, 1)
	}
	return r
}

// SetRing takes the registry's newest view: the ring, and everybody registered who takes part in this, on the ring or not, with
// incarnation 0 where the registry names none. It is a hint: a wrong view costs questions, never a lie.
func (n *Node) SetRing(now Instant, ring *hashring.Ring, registered []Peer) {
	if !n.wake(now) {
		return
	}
	n.incarnations = make(map[string]uint64, len(registered))
	for _, p := range registered {
		n.incarnations[p.Member] = p.Incarnation
		n.learn(now, p) // whom it should have greeted; but the registry may have lost its data when it looked
	}
	n.snapshot = n.same(ring)
	n.rering(now)
	n.releaseDead(now)
}
