package hashring

import (
	"math/bits"
	"slices"
)

const (
	strataBits = 12
	strata     = 1 << strataBits // and so the points per unit of weight: one in each stratum
	ownerBits  = 16
	ownerMask  = 1<<ownerBits - 1
	cellBits   = 64 - ownerBits // the bits of a hash that decide its owner
	cells      = 1 << cellBits
)

// A point stands on the ring at a cell, the upper 48 bits, and says who owns the cells before it: the lower 16 bits
// are the number of its owner in Ring.owners. Points are ordered as numbers: by cell, then by owner. Since owners are
// sorted by ID, two points on one cell stand in the order of their IDs, whatever the order the members came in.
type point uint64

func (p point) cell() uint64  { return uint64(p) >> ownerBits }
func (p point) owner() uint16 { return uint16(p) }

// A unit is one unit of weight: a seed that gives one point per stratum.
type unit struct {
	seed  uint64
	owner uint16
}

// appendUnits appends the units of the member with that number in Ring.owners.
func appendUnits(units []unit, m Member, owner uint16) []unit {
	seed := idHash(m.ID)
	for range m.Weight {
		seed += gamma
		units = append(units, unit{mix(seed), owner})
	}
	return units
}

// point returns the unit's point in stratum s. Only its place within the stratum is drawn, so that a ring of total
// weight W has W points in each stratum, and a build sorts 4,096 short runs in place of one long one.
func (u unit) point(s int) point {
	within := mix(u.seed+uint64(s+1)*gamma) >> strataBits
	return point(uint64(s)<<(64-strataBits) | within&^ownerMask | uint64(u.owner))
}

// leastStrata returns how many strata of w points are worth a goroutine: some 0.1 ms of work.
func leastStrata(w int) int { return 1 + 30_000/(w+1) }

// scatter fills points with the sorted points of units.
func scatter(points []point, units []unit) {
	inParallel(strata, leastStrata(len(units)), func(from, to int) { scatterStrata(points, units, from, to) })
}

func scatterStrata(points []point, units []unit, from, to int) {
	w := len(units)
	drawn := make([]point, w)
	ends := make([]uint32, w+1)
	for s := from; s < to; s++ {
		// Places are uniform, so that a counting sort by share of the stratum leaves each point a step or two from
		// where it belongs, and an insertion sort carries it there.
		clear(ends)
		for i, u := range units {
			drawn[i] = u.point(s)
			ends[slot(drawn[i], w)+1]++
		}
		for i := range w {
			ends[i+1] += ends[i]
		}
		run := points[s*w : (s+1)*w]
		for _, p := range drawn {
			at := &ends[slot(p, w)]
			run[*at] = p
			*at++
		}
		for i := 1; i < w; i++ {
			for j := i; j > 0 && run[j] < run[j-1]; j-- {
				run[j], run[j-1] = run[j-1], run[j]
			}
		}
	}
}

// slot maps a point's place within its stratum to 0..n-1.
func slot(p point, n int) uint64 {
	hi, _ := bits.Mul64(uint64(p)<<strataBits, uint64(n))
	return hi
}

// merge fills points with those of old, renumbered, and those of units. renumber holds, for each of old's owners, what
// to add to its points, or drop. An owner of units that old has too needs to be dropped.
func merge(points, old []point, renumber []point, units []unit) {
	inParallel(strata, leastStrata(len(points)/strata), func(from, to int) {
		mergeStrata(points, old, renumber, units, from, to)
	})
}

func mergeStrata(points, old []point, renumber []point, units []unit, from, to int) {
	w := len(old) / strata
	fresh := make([]point, len(units))
	n := from * (len(points) / strata) // the next point's place
	for s := from; s < to; s++ {
		for i, u := range units {
			fresh[i] = u.point(s)
		}
		slices.Sort(fresh)
		// In old's numbers, too, fresh points stand before those of the owners that come after theirs.
		run := old[s*w : (s+1)*w]
		for _, f := range fresh {
			before, _ := slices.BinarySearch(run, f)
			n += copyRenumbered(points[n:], run[:before], renumber)
			run = run[before:]
			points[n] = f
			n++
		}
		n += copyRenumbered(points[n:], run, renumber)
	}
}

// drop in place of a renumbering leaves the owner's points out.
const drop = point(cells)

// copyRenumbered copies run, and returns how many points it has not dropped.
func copyRenumbered(to, run []point, renumber []point) int {
	n := 0
	for _, p := range run {
		shift := renumber[p.owner()]
		if shift == drop {
			continue
		}
		to[n] = p + shift
		n++
	}
	return n
}
