package edge

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/selvedge/selvedge/internal/admin"
	"github.com/selvedge/selvedge/internal/discovery"
)

// tally counts what this edge has with one member, for the operator's page.
type tally struct {
	member   string
	sessions atomic.Int64

	// Under tallies.mu.
	failures uint64 // to connect
	last     admin.Failure
}

// tallies are those of a service's members, and of those that left while they had sessions. The zero tallies are ready.
type tallies struct {
	mu sync.RWMutex
	by map[string]*tally
}

// opened counts a session with a member; its end takes one off what is returned.
func (t *tallies) opened(member string) *tally {
	t.mu.RLock()
	one, known := t.by[member]
	if known {
		one.sessions.Add(1) // under mu: see forget
	}
	t.mu.RUnlock()
	if !known {
		t.mu.Lock()
		defer t.mu.Unlock()
		one = t.of(member)
		one.sessions.Add(1)
	}
	return one
}

// of is called under mu.
func (t *tallies) of(member string) *tally {
	one, known := t.by[member]
	if !known {
		if t.by == nil {
			t.by = make(map[string]*tally)
		}
		one = &tally{member: member}
		t.by[member] = one
	}
	return one
}

// failed counts a connection to a member that did not come about.
func (t *tallies) failed(member string, err error) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.of(member)
	one.failures++
	one.last = admin.Failure{At: now, Error: err.Error()}
}

// sessions is how many this edge has with a member.
func (t *tallies) sessions(member string) int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if one, known := t.by[member]; known {
		return int(one.sessions.Load())
	}
	return 0
}

// figures are what is counted of each member.
func (t *tallies) figures() map[string]admin.Figures {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make(map[string]admin.Figures, len(t.by))
	for id, one := range t.by {
		out[id] = admin.Figures{Own: int(one.sessions.Load()), Failures: one.failures, LastFailure: one.last}
	}
	return out
}

// forget drops members that are gone and have no session any more. It follows the view.
func (t *tallies) forget(_, now *discovery.Snapshot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, one := range t.by {
		if _, there := now.Member(id); !there && one.sessions.Load() == 0 {
			delete(t.by, id)
		}
	}
}
