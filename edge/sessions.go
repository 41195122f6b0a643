package edge

import (
	"math"
	"net/netip"
	"sync"
	"time"

	"github.com/selvedge/selvedge/internal/admin"
	"github.com/selvedge/selvedge/internal/tunnel"
)

// sessions are the places that the edge has, and who sits there: upgrades under way and open sessions.
type sessions struct {
	mu       sync.Mutex
	limit    int                  // of places
	held     int                  // places taken
	claims   map[*session]claim   // of open sessions, where there were limits when they began
	users    map[string]int       // sessions, and upgrades under way, of each user that has any, where there is a limit
	networks map[netip.Prefix]int // the same of addresses
	joined   int                  // open sessions
	open     session              // sentinel of the ring of open sessions
	cut      bool                 // every session is to end: those that open now too
	closed   bool                 // no place is given any more
	empty    chan struct{}        // closed once closed is set and held is 0
}

// session is an open session, in the list that [sessions.cutAll] walks: a few pointers, no map entry, no goroutine.
type session struct {
	prev, next *session
	service    *service
	at         *tally         // of its member
	tunnel     *tunnel.Tunnel // nil until Join has returned
	asked      bool           // to end
	done       bool
}

// sessionLimit leaves an eighth of the descriptors, and at least 64, for listeners, plain HTTP, pipes and the registry; a session
// takes two. configured, where it is not 0, can only lower it.
func sessionLimit(descriptors uint64, configured int) int {
	limit := math.MaxInt
	if descriptors > 0 && descriptors < math.MaxInt32 {
		limit = max(1, (int(descriptors)-max(64, int(descriptors)/8))/2)
	}
	if configured > 0 {
		limit = min(limit, configured)
	}
	return limit
}

func newSessions(limit int) *sessions {
	s := &sessions{
		limit: limit, empty: make(chan struct{}),
		claims: make(map[*session]claim), users: make(map[string]int), networks: make(map[netip.Prefix]int),
	}
	s.open.prev, s.open.next = &s.open, &s.open
	return s
}

// bound changes how many places there are. Whoever has one keeps it.
func (s *sessions) bound(limit int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = limit
}

// most is how many places there are.
func (s *sessions) most() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limit
}

// take reserves a place; give returns it, with what its holder counts towards.
func (s *sessions) take() *refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return refuseDraining
	case s.held >= s.limit:
		return refuseFull
	}
	s.held++
	return nil
}

func (s *sessions) give(c claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.disclaim(c)
	s.giveLocked()
}

func (s *sessions) giveLocked() {
	s.held--
	if s.closed && s.held == 0 {
		close(s.empty)
	}
}

// join makes a session of an attempt out of what open joins, and of the place that the attempt holds, which it gives back when the
// session ends, or at once when the error is not nil. It calls open once, with what the relay is to call at the end.
func (s *sessions) join(e *Edge, a *attempt, open func(ended func(tunnel.Summary)) (*tunnel.Tunnel, error)) error {
	svc := a.service()
	one := &session{service: svc, at: svc.tallies.opened(a.member.ID)}
	e.tidy.upgraded()
	svc.open.Add(1)
	svc.mover.add(one, a.x.user, a.member)
	s.mu.Lock()
	if a.claim != (claim{}) {
		s.claims[one] = a.claim
	}
	s.joined++
	one.prev, one.next = s.open.prev, &s.open
	one.prev.next, one.next.prev = one, one
	s.mu.Unlock()

	t, err := open(one.ended) // may end it before it returns
	if err != nil {
		s.remove(one)
		return err
	}
	s.mu.Lock()
	cut := s.cut && !one.done
	one.tunnel = t
	s.mu.Unlock()
	if cut {
		t.Close(tunnel.Drained)
	}
	return nil
}

// ended is called by the relay, once.
func (one *session) ended(sum tunnel.Summary) {
	e := one.service.edge
	e.metrics.closes.WithLabelValues(one.service.name, sum.Reason.String()).Inc()
	one.service.cuts.Add(admin.Closure{Member: one.at.member, Reason: sum.Reason.String(), By: "edge"})
	e.sessions.remove(one)
}

func (s *sessions) remove(one *session) {
	one.service.mover.remove(one)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.joined--
	one.at.sessions.Add(-1)
	if one.service.open.Add(-1) == 0 && one.service.departed.Load() {
		one.service.edge.retireLater()
	}
	one.prev.next, one.next.prev = one.next, one.prev
	one.done = true
	if c, limited := s.claims[one]; limited {
		delete(s.claims, one)
		s.disclaim(c)
	}
	s.giveLocked()
}

// end asks a session to end, and tells whether it had not been asked yet. One whose tunnel is not there yet is not asked.
func (s *sessions) end(one *session, reason tunnel.Reason) bool {
	s.mu.Lock()
	ask := one.tunnel != nil && !one.asked && !one.done
	one.asked = one.asked || ask
	s.mu.Unlock()
	if ask {
		one.tunnel.Close(reason) // outside mu: it may call ended
	}
	return ask
}

// close gives no more places and returns a channel that is closed once the last one has come back.
func (s *sessions) close() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		if s.held == 0 {
			close(s.empty)
		}
	}
	return s.empty
}

// The pace of cutting: all within cutSpread, at least cutLeast at each tick, so that clients do not come back in one second.
const (
	cutSpread = 10 * time.Second
	cutTick   = 50 * time.Millisecond
	cutLeast  = 20
)

// cutAll ends all sessions at a pace.
func (s *sessions) cutAll() {
	s.mu.Lock()
	s.cut = true
	perTick := max(cutLeast, s.held/int(cutSpread/cutTick)+1)
	s.mu.Unlock()
	tick := time.NewTicker(cutTick)
	defer tick.Stop()
	for {
		batch := make([]*tunnel.Tunnel, 0, perTick)
		s.mu.Lock()
		one := s.open.next
		for ; one != &s.open && len(batch) < perTick; one = one.next {
			if one.tunnel != nil && !one.asked { // without a tunnel yet: join sees cut
				one.asked = true
				batch = append(batch, one.tunnel)
			}
		}
		atEnd := one == &s.open
		s.mu.Unlock()
		for _, t := range batch {
			t.Close(tunnel.Drained) // outside mu: it may call ended
		}
		if atEnd {
			return
		}
		<-tick.C
	}
}
