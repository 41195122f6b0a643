package hashring

import (
	"cmp"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// The ring as SPEC.md words it, with nothing done for speed: what the package's rings are held against.

type naivePoint struct {
	cell uint64
	id   string
}

type naiveRing []naivePoint

func newNaive(members []Member) naiveRing {
	var r naiveRing
	for _, m := range members {
		for u := 1; u <= m.Weight; u++ {
			seed := mix(xxhash.Sum64String(m.ID) + uint64(u)*gamma)
			for s := range uint64(4096) {
				r = append(r, naivePoint{s<<36 | mix(seed+(s+1)*gamma)>>28, m.ID})
			}
		}
	}
	slices.SortFunc(r, func(a, b naivePoint) int { return cmp.Or(cmp.Compare(a.cell, b.cell), cmp.Compare(a.id, b.id)) })
	return r
}

// naiveOf reads the points out of a ring.
func naiveOf(r *Ring) naiveRing {
	var n naiveRing
	for _, p := range r.points {
		n = append(n, naivePoint{p.cell(), r.owners[p.owner()]})
	}
	return n
}

func (r naiveRing) from(h uint64) int {
	i, _ := slices.BinarySearchFunc(r, h>>16, func(p naivePoint, cell uint64) int { return cmp.Compare(p.cell, cell) })
	return i
}

func (r naiveRing) owner(h uint64) string {
	if len(r) == 0 {
		return ""
	}
	return r[r.from(h)%len(r)].id
}

func (r naiveRing) successors(h uint64) []string {
	var ids []string
	for i := range r {
		if id := r[(r.from(h)+i)%len(r)].id; !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// edges returns hashes around each of n points of the ring, where an owner is most easily wrong.
func (r naiveRing) edges(n int) []uint64 {
	hashes := []uint64{0, 1, 1<<16 - 1, 1 << 16, 1<<64 - 1, 1<<64 - 1<<16}
	for i := range min(n, len(r)) {
		h := r[i*len(r)/n].cell << 16
		hashes = append(hashes, h-1, h, h+1, h+1<<16-1, h+1<<16)
	}
	return hashes
}
