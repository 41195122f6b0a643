package admin

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/selvedge/selvedge/hashring"
	"github.com/selvedge/selvedge/internal/discovery"
)

const stepsShown = 12

// steps tells who joined and who left the ring between two snapshots, and why.
func steps(from, to *discovery.Snapshot) []Step {
	before := weights(from.Ring)
	after := weights(to.Ring)
	var list []Step
	for _, m := range from.Ring.Members() {
		now, stays := after[m.ID]
		switch {
		case !stays:
			list = append(list, Step{m.ID, "left", whyOut(to, m.ID)})
		case now != m.Weight:
			list = append(list, Step{m.ID, "weight", fmt.Sprintf("%d → %d", m.Weight, now)})
		}
	}
	for _, m := range to.Ring.Members() {
		if _, was := before[m.ID]; !was {
			list = append(list, Step{m.ID, "joined", ""})
		}
	}
	if len(list) > stepsShown {
		more := len(list) - stepsShown + 1
		list = append(list[:stepsShown-1], Step{fmt.Sprintf("%d others", more), "changed", ""})
	}
	return list
}

func weights(r *hashring.Ring) map[string]int {
	by := make(map[string]int, r.Len())
	for _, m := range r.Members() {
		by[m.ID] = m.Weight
	}
	return by
}

// whyOut tells what keeps a member out of the ring.
func whyOut(s *discovery.Snapshot, id string) string {
	m, known := s.Member(id)
	switch {
	case !known:
		return "gone from the registry"
	case m.State != discovery.Serving:
		return m.State.String()
	case m.Weight == 0:
		return "weight 0"
	case m.Override == discovery.Damped:
		return "damped: it came and went too often"
	default:
		return m.Health.String()
	}
}

func sortTransfers(list []Transfer) {
	slices.SortFunc(list, func(a, b Transfer) int {
		return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
}
