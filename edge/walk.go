package edge

import (
	"iter"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/selvedge/selvedge/internal/discovery"
)

// candidate is a member to try for a request, and whom the walk has passed over before it.
type candidate struct {
	discovery.Member
	passedOver []string // ids, in walking order; empty at the owner
}

// walk finds whom to try for a user's request, best first: the owner, then its successors, and last those that are avoided, so that
// there always is somebody to try. It ends after as many as the service's attempts. Without a user it begins at a random
// place on the ring, which spreads requests by weight. All come from one snapshot.
type walk struct {
	service *service
	snap    *discovery.Snapshot
	user    string
	left    int // attempts
	looked  int // members of the ring that have been looked at
	avoided []discovery.Member
	passed  []string
}

func (s *service) walk(snap *discovery.Snapshot, user string) walk {
	if user == "" {
		user = strconv.FormatUint(rand.Uint64(), 36)
	}
	return walk{service: s, snap: snap, user: user, left: s.cfg.attempts()}
}

// next is the next to try; false: nobody is left. The second and later ones look at the ring from the owner on again, which is cheaper
// than to keep an iterator for every request that is content with its first.
func (w *walk) next() (candidate, bool) {
	if w.left == 0 {
		return candidate{}, false
	}
	at := 0
	for id := range w.snap.Ring.Successors(w.user) {
		if at++; at <= w.looked {
			continue
		}
		w.looked = at
		m, ok := w.snap.Member(id)
		if !ok {
			continue
		}
		passed := w.passed
		w.passed = append(w.passed, id)
		if w.service.outliers.admit(m) {
			w.left--
			return candidate{m, passed}, true
		}
		w.avoided = append(w.avoided, m)
	}
	if len(w.avoided) == 0 {
		return candidate{}, false
	}
	m := w.avoided[0]
	w.avoided = w.avoided[1:]
	w.left--
	var others []string
	if m.ID != w.passed[0] {
		others = slices.DeleteFunc(slices.Clone(w.passed), func(id string) bool { return id == m.ID })
	}
	return candidate{m, others}, true
}

// rest is all who are left, for a loop that stops when one has answered.
func (w walk) rest() iter.Seq[candidate] {
	return func(yield func(candidate) bool) {
		for c, ok := w.next(); ok && yield(c); {
			c, ok = w.next()
		}
	}
}
