package homing

import "slices"

const maxAnnounced = 4096 // users in one announcement; the rest waits for the next

// advance opens o if nobody's acknowledgement is missing any more, and has the missing ones asked for.
func (n *Node) advance(now Instant, o *Opening) {
	owed := n.owed(now, o.User, o.acked)
	if len(owed) == 0 {
		n.endOpening(o)
		n.counters[o.User%User(len(n.counters))]++
		n.emit(Opened{o})
		n.resumeHeld(now, o.User)
		return
	}
	for _, to := range owed {
		p := n.alive(to)
		if p.toAnnounce == nil {
			p.toAnnounce = make(map[User]struct{})
		}
		p.toAnnounce[o.User] = struct{}{}
	}
}

func (n *Node) endOpening(o *Opening) {
	if i := slices.Index(n.openings, o); i >= 0 {
		n.openings = slices.Delete(n.openings, i, i+1)
	}
}

// announceQueued sends what waits for each peer, one call at a time, so that what comes meanwhile goes together.
func (n *Node) announceQueued(now Instant) {
	for _, p := range n.order {
		if p.announcing || len(p.toAnnounce) == 0 {
			continue
		}
		users := make([]User, 0, min(len(p.toAnnounce), maxAnnounced))
		for u := range p.toAnnounce {
			if len(users) < maxAnnounced {
				users = append(users, u)
				delete(p.toAnnounce, u)
			}
		}
		slices.Sort(users)
		p.announcing = true
		n.version++
		p.changed = n.version // by an old promise p may list users now whom no reply to come names
		n.send(now, p, Announce{Sequence: n.version, Users: users})
	}
}

// acknowledged takes in that p knows of sessions of users to come. Whatever was promised meanwhile is looked at again before the
// 101.
func (n *Node) acknowledged(now Instant, p Process, users []User) {
	for _, o := range slices.Clone(n.openings) {
		if _, one := slices.BinarySearch(users, o.User); one {
			if o.acked == nil {
				o.acked = make(map[Process]struct{})
			}
			o.acked[p] = struct{}{}
			n.advance(now, o)
		}
	}
}

// openingsDue refuses those that have waited too long, and looks at the others again: a promise may have lapsed, an announcement
// may have been lost.
func (n *Node) openingsDue(now Instant) {
	for _, o := range slices.Clone(n.openings) {
		if now >= o.by {
			n.endOpening(o)
			n.emit(Unopened{o})
			continue
		}
		n.advance(now, o)
	}
	n.announceQueued(now)
}
