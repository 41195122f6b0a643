package discovery

import (
	"sort"
	"time"
)

// recoveryHold is how long after an outage the catalogue's bad news is not believed: the TTL within which each live member
// must have shown itself again, and a margin for the heartbeat that re-registers (2 s), its backoff (3 s at most) and the way
// through Consul.
const recoveryHold = HeartbeatTTL + 5*time.Second

// hold keeps the members of the last good ring through the time after an outage, in which the catalogue may be empty, or have every
// TTL check critical, though nothing happened to the members. Its zero value holds nothing.
type hold struct {
	until time.Time
	good  map[string]Member // in the ring before the outage
}

// newHold starts a hold at now, when contact is regained. members is what was in force before.
func newHold(now time.Time, members []Member) hold {
	good := make(map[string]Member)
	for _, m := range members {
		if m.InRing() {
			good[m.ID] = m
		}
	}
	if len(good) == 0 {
		return hold{}
	}
	return hold{until: now.Add(recoveryHold), good: good}
}

// active tells whether the hold is still on.
func (h hold) active(now time.Time) bool { return now.Before(h.until) }

// apply returns the members to believe, where the catalogue says fresh (one per id; it stays as it is), and the ids of those held
// back, both sorted by id. A member that was in the ring and is missing stays; one that is critical stays healthy. What the
// catalogue says beyond that counts at once: newcomers, another state, weight or address, another incarnation.
func (h hold) apply(now time.Time, fresh []Member) (members []Member, held []string) {
	if !h.active(now) {
		return fresh, nil
	}
	members = make([]Member, 0, max(len(fresh), len(h.good)))
	seen := make(map[string]bool, len(fresh))
	for _, m := range fresh {
		seen[m.ID] = true
		was, good := h.good[m.ID]
		if good && m.Health == Critical && m.Incarnation == was.Incarnation && m.State == Serving {
			m.Health = was.Health
			if was.Health == Warning {
				m.Weight = was.Weight // a critical member is reported with the weight of a passing one
			}
			held = append(held, m.ID)
		}
		members = append(members, m)
	}
	for id, was := range h.good {
		if !seen[id] {
			members = append(members, was)
			held = append(held, id)
		}
	}
	sortMembers(members)
	sort.Strings(held)
	return members, held
}
