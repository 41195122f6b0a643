package homing

import "time"

// Registration is one entry of the registry.
type Registration struct {
	Peer
	Passing bool // its health checks pass
}

const (
	greetEvery   = 300 * time.Millisecond
	catalogEvery = time.Second
)

// Catalog takes in a consistent read of the registry that was begun at sent: everybody who is registered, healthy or not. It is the
// one thing that counts as the registry's confirmation of this process: what a local agent says may be out of date.
func (n *Node) Catalog(now, sent Instant, all []Registration) {
	if !n.wake(now) {
		return
	}
	there := make(map[Process]bool, len(all))
	for _, r := range all {
		there[r.Process] = r.Passing
		if r.Incarnation == 0 && r.Passing { // a list that names no incarnations speaks of whichever there is
			if p := n.known[r.Member]; p != nil {
				there[p.Process] = true
			}
		}
		n.learn(now, r.Peer)
	}
	self, anonymous := n.cfg.Self.Process, Process{Member: n.cfg.Self.Member}
	if there[self] || there[anonymous] {
		n.confirmed = max(n.confirmed, sent)
	}
	_, shown := there[self]
	if _, listed := there[anonymous]; shown || listed { // else somebody who joins now may not see us, and we not him
		n.hasCatalog = true
	}
	broken := sent.since(n.readAt) > n.cfg.Lease/2 // somebody may have been there meanwhile
	n.readAt = max(n.readAt, sent)
	for _, p := range n.order {
		switch {
		case there[p.Process]:
			p.absentSince = never
		case p.absentSince == never || broken:
			p.absentSince = sent
		}
	}
	if n.phase == joining {
		n.nextGreet = now
		n.greet(now)
		n.finishJoin(now)
	}
	n.releaseDead(now)
}

// greet says hello to everybody who has not acknowledged this process yet, while it joins.
func (n *Node) greet(now Instant) {
	if n.phase != joining || now < n.nextGreet {
		return
	}
	n.nextGreet = now.plus(greetEvery)
	if now >= n.nextCatalog { // again and again: whoever is gone must not be waited for
		n.nextCatalog = now.plus(catalogEvery)
		n.emit(ReadCatalog{})
	}
	for _, p := range n.order {
		if !p.greeted {
			n.send(now, p, Hello{})
		}
	}
}

// finishJoin ends joining once everybody has acknowledged this process or is dead: from then on no certain answer is given without
// asking it.
func (n *Node) finishJoin(now Instant) {
	if n.phase != joining || !n.hasCatalog || n.neverJoins {
		return
	}
	for _, p := range n.order {
		if !p.greeted {
			return
		}
	}
	n.phase = serving
	n.rering(now)
	n.emit(Joined{})
}

// Waiting returns whom this process waits for before it can join.
func (n *Node) Waiting() (out []Peer) {
	for _, p := range n.order {
		if n.phase == joining && !p.greeted {
			out = append(out, p.Peer)
		}
	}
	return out
}
