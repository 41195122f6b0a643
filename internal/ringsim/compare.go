package ringsim

import (
	"cmp"
	"slices"

	"github.com/selvedge/selvedge/hashring"
)

// Change is what the step from one ring to another moves. Shares are parts of the hash space, 0 to 1, and so of users.
type Change struct {
	Moved  float64 // the share whose owner changes
	Least  float64 // the least share that has to change its owner to get from the old ring's shares to the new one's
	Flows  []Flow  // the largest first
	Ranges []hashring.Move
}

// Flow is the share that moves from one member to another, over all ranges.
type Flow struct {
	From  string  `json:"from"` // "" where nobody was
	To    string  `json:"to"`   // "" where nobody is
	Share float64 `json:"share"`
}

// Compare tells what the step from old to new moves, exactly: it costs what [hashring.Diff] costs. Both rings need the same
// secret, or none.
func Compare(old, new *hashring.Ring) Change {
	c := Change{Ranges: hashring.Diff(old, new)}
	type ends struct{ from, to string }
	shares := make(map[ends]float64)
	for _, m := range c.Ranges {
		shares[ends{m.From, m.To}] += share(m)
	}
	lost := make(map[string]float64) // by member, less what it gained
	for e, s := range shares {
		c.Moved += s
		lost[e.from] += s
		lost[e.to] -= s
		c.Flows = append(c.Flows, Flow{e.from, e.to, s})
	}
	slices.SortFunc(c.Flows, func(a, b Flow) int {
		return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	for _, l := range lost {
		c.Least += max(0, l)
	}
	return c
}

// MovedToLeast is how many times the least is moved: 1 where nothing has to and nothing does.
func (c Change) MovedToLeast() float64 {
	if c.Least == 0 {
		return 1
	}
	return c.Moved / c.Least
}

// share returns the part of the hash space that m covers. Ranges consist of whole cells of 2^16 hashes, of which there are
// 2^48: their shares, and sums of them, are exact.
func share(m hashring.Move) float64 {
	return float64((m.End-m.Start)>>16+1) / (1 << 48)
}
