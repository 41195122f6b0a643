package discovery

import "time"

// The measure of damping. A rolling restart is one return of each member and never comes near it.
const (
	dampWindow  = time.Minute      // a stay in the ring, or out of it, of this length ends a series of returns
	dampAfter   = 3                // the return within dampWindow that waits first
	dampFirst   = 10 * time.Second // how long it waits; doubled for each one after it in the series
	dampLongest = time.Minute
)

// damping keeps members that come and go from churning the ring: whoever leaves is out at once, whoever comes is in at once, and only who
// has come back too often waits. The zero value knows nobody.
type damping struct {
	members map[string]*comings
	returns uint64 // of all members, ever
}

// comings are what is remembered of one member's comings and goings, as the registry reports them.
type comings struct {
	incarnation uint64
	in          bool      // healthy and wanting users
	since       time.Time // when in became what it is
	ever        bool      // it was in once, or was there before we were: the next time is a return
	byWord      bool      // it is out by its own or its operator's word, draining or weight 0, and by nothing else

	returns []time.Time // within dampWindow, oldest first; at most dampAfter
	waits   int         // in this series
	until   time.Time   // out of the ring until then
}

// note takes in what the registry reports, one per id, and returns the ids of those that have to wait from now on.
func (d *damping) note(now time.Time, members []Member) (waiting []string) {
	first := d.members == nil
	if first {
		d.members = make(map[string]*comings)
	}
	present := make(map[string]bool, len(members))
	for _, m := range members {
		present[m.ID] = true
		c := d.members[m.ID]
		if c == nil {
			c = &comings{incarnation: m.Incarnation, since: now, ever: first, byWord: true}
			d.members[m.ID] = c
		}
		if !c.report(now, m) {
			continue
		}
		d.returns++
		if c.mustWait(now) {
			waiting = append(waiting, m.ID)
		}
	}
	for id, c := range d.members {
		if !present[id] {
			c.leave(now, false)
			if now.Sub(c.since) >= dampWindow && !now.Before(c.until) {
				delete(d.members, id)
			}
		}
	}
	return waiting
}

// report takes in what is said of the member and tells whether that is a return. A new incarnation is one even where nobody saw the old
// one go.
func (c *comings) report(now time.Time, m Member) (isReturn bool) {
	restarted := m.Incarnation != c.incarnation
	c.incarnation = m.Incarnation
	if restarted || !m.wantsUsers() || m.Health == Critical {
		c.leave(now, !restarted && !m.wantsUsers())
	}
	if c.in || !m.wantsUsers() || m.Health == Critical {
		return false
	}
	isReturn = c.ever && !c.byWord
	if isReturn && now.Sub(c.since) >= dampWindow {
		c.returns, c.waits = nil, 0 // it was away for long
	}
	c.in, c.ever, c.since = true, true, now
	return isReturn
}

// leave notes that the member is out. What is not its word is remembered: one that drains and then dies comes back as one that died.
func (c *comings) leave(now time.Time, byWord bool) {
	if !c.in {
		c.byWord = c.byWord && byWord
		return
	}
	if now.Sub(c.since) >= dampWindow {
		c.returns, c.waits = nil, 0 // it was there for long
	}
	c.in, c.since, c.byWord = false, now, byWord
}

// mustWait counts a return and tells whether the member has to wait.
func (c *comings) mustWait(now time.Time) bool {
	c.returns = append(c.returns, now)
	for len(c.returns) > dampAfter || now.Sub(c.returns[0]) >= dampWindow {
		c.returns = c.returns[1:]
	}
	if c.waits == 0 && len(c.returns) < dampAfter {
		return false
	}
	c.until = now.Add(min(dampFirst<<min(c.waits, 10), dampLongest))
	c.since = c.until // its stay begins then
	c.waits++
	return true
}

// proven tells whether the member has ever been healthy, as far as is known.
func (d *damping) proven(id string) bool {
	c := d.members[id]
	return c != nil && c.ever
}

// holdOut puts those that wait out of the ring. next is when the first of them comes in; zero: nobody waits. Damping must not take away
// what users need: where it would leave less than the share least of the ring, or nobody, none of them waits any longer.
func (d *damping) holdOut(now time.Time, members []Member, least float64) (next time.Time) {
	in := 0
	var out []*Member
	for i := range members {
		m := &members[i]
		if !m.InRing() {
			continue
		}
		in++
		if c := d.members[m.ID]; c != nil && now.Before(c.until) {
			out = append(out, m)
		}
	}
	if left := in - len(out); left == 0 || float64(left) < least*float64(in) {
		for _, m := range out {
			d.members[m.ID].until = time.Time{}
		}
		return time.Time{}
	}
	for _, m := range out {
		m.Override = Damped
		if until := d.members[m.ID].until; next.IsZero() || until.Before(next) {
			next = until
		}
	}
	return next
}
