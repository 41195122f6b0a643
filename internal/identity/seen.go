package identity

import (
	"sync"
	"time"
)

const (
	// seenFor is how long what was used can come again: from the earliest moment that it is valid, by the clock of who made it, to
	// the last.
	seenFor = 2 * ClockSkew
	// mostSeen bounds what is remembered: some 40 bytes each, and 8,000 uses a second for as long as they can come again.
	mostSeen = 1 << 19
)

// seen remembers what was used, so that it is not used again. What is remembered ages in two generations, which costs a map entry and no
// bookkeeping. When there is no room it does not forget what could come again: it takes nothing any more that is as old as what it forgets.
type seen struct {
	span time.Duration
	most int

	mu         sync.Mutex
	young, old generation
	floor      time.Time // what is not after this is refused
}

type generation struct {
	ids   map[[16]byte]struct{}
	since time.Time // when it began
	last  time.Time // the latest time of what is in it
}

func newSeen() *seen { return &seen{span: seenFor, most: mostSeen} }

// first tells whether id, which was made at (or ends at) stamp, is used for the first time.
func (s *seen) first(id [16]byte, stamp, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if full := len(s.young.ids) >= s.most/2; full || now.Sub(s.young.since) > s.span {
		if full && now.Sub(s.young.since) <= s.span && s.old.last.After(s.floor) {
			s.floor = s.old.last
		}
		s.old, s.young = s.young, generation{ids: make(map[[16]byte]struct{}), since: now}
	}
	_, young := s.young.ids[id]
	_, old := s.old.ids[id]
	if young || old || !stamp.After(s.floor) {
		return false
	}
	s.young.ids[id] = struct{}{}
	if stamp.After(s.young.last) {
		s.young.last = stamp
	}
	return true
}
