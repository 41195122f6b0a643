package homing

import "time"

// note is what is remembered of a user whose home is another process, or who was just sent there. In calm there is none.
type note struct {
	owner    string  // on the ring in force
	sessions int     // here, pending ones included; counted only where owner is another
	version  uint64  // since when it is listed
	moving   Instant // until when a session that was sent home is expected there
}

// Opening is a session that waits for its 101.
type Opening struct {
	User  User
	by    Instant
	acked map[Process]struct{}
}

// Open says that a session of u is registered, as pending, and asks for its 101: Opened or Unopened follows. It returns nil where
// this process takes no session. Either way [Node.Closed] is called once when the session is registered no more.
func (n *Node) Open(now Instant, u User) *Opening {
	serves := n.wake(now) && n.phase == serving
	if owner := n.ring.OwnerOfHash(uint64(u)); owner != n.cfg.Self.Member {
		x := n.note(u, owner)
		x.sessions++
	}
	if !serves {
		return nil
	}
	o := &Opening{User: u, by: now.plus(n.cfg.OpenTimeout)}
	n.openings = append(n.openings, o)
	n.advance(now, o)
	n.announceQueued(now)
	return o
}

// Cancel says that nobody waits for the opening any more.
func (n *Node) Cancel(o *Opening) { n.endOpening(o) }

// Closed says that a session of u is registered no more, and whether it was sent to the user's home.
func (n *Node) Closed(now Instant, u User, moved bool) {
	x := n.noted[u]
	if moved && n.phase < fenced {
		if x == nil {
			x = n.note(u, n.ring.OwnerOfHash(uint64(u)))
		}
		x.moving = now.plus(n.cfg.MoveGrace)
	}
	if x == nil {
		return
	}
	x.sessions = max(x.sessions-1, 0)
	n.dropNote(now, u, x)
}

// Moving is how long a session of u that was sent to its home is still expected there; 0: none is.
func (n *Node) Moving(now Instant, u User) time.Duration {
	if x := n.noted[u]; x != nil {
		return max(x.moving.Until(now), 0)
	}
	return 0
}

// Openings counts the 101s of sessions of u, and of some others. It is read before one looks for sessions of u here.
func (n *Node) Openings(u User) uint64 { return n.counters[u%User(len(n.counters))] }

// MayMove tells whether u has another home that is known to expect it: sessions here may be sent there.
func (n *Node) MayMove(now Instant, u User) bool {
	x := n.noted[u]
	if x == nil || x.owner == "" || x.owner == n.cfg.Self.Member || now.since(n.ringSince) < n.cfg.Settle {
		return false
	}
	home := n.known[x.owner]
	if home == nil {
		return true // it takes no part in this; edges route to it
	}
	return !home.draining && home.until > now && home.ring.OwnerOfHash(uint64(u)) == home.Member && home.processed >= x.version
}

func (n *Node) note(u User, owner string) *note {
	if x := n.noted[u]; x != nil {
		return x
	}
	n.version++
	x := &note{owner: owner, version: n.version, moving: never}
	n.noted[u] = x
	n.list(u, x)
	return x
}

func (n *Node) list(u User, x *note) {
	users := n.byOwner[x.owner]
	if users == nil {
		users = make(map[User]*note)
		n.byOwner[x.owner] = users
	}
	users[u] = x
	if p := n.known[x.owner]; p != nil {
		p.changed = n.version
	}
}

func (n *Node) dropNote(now Instant, u User, x *note) {
	if x.sessions > 0 || x.moving > now {
		return
	}
	n.version++
	delete(n.noted, u)
	delete(n.byOwner[x.owner], u)
	if len(n.byOwner[x.owner]) == 0 {
		delete(n.byOwner, x.owner)
	}
	if p := n.known[x.owner]; p != nil {
		p.changed = n.version
	}
}

func (n *Node) forgetNotes(now Instant) {
	for u, x := range n.noted {
		n.dropNote(now, u, x)
	}
}

// renote makes the notes anew for another ring.
func (n *Node) renote() {
	n.version++
	old := n.noted
	n.noted, n.byOwner = make(map[User]*note), make(map[string]map[User]*note)
	for u, x := range old {
		if x.moving != never {
			n.note(u, n.ring.OwnerOfHash(uint64(u))).moving = x.moving
		}
	}
	for u := range n.cfg.Users() {
		if owner := n.ring.OwnerOfHash(uint64(u)); owner != n.cfg.Self.Member {
			n.note(u, owner).sessions++
		}
	}
	for _, p := range n.order {
		p.changed = n.version
	}
}
