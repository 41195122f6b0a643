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
// are the number of its owner in Ring.owners. Points are ordered by cell, and those on one cell by the ID of their owner.
type point uint64

func (p point) cell() uint64  { return uint64(p) >> ownerBits }
func (p point) hash() uint64  { return uint64(p) &^ ownerMask } // the first one of its cell
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

// seek returns the index of the first point of a stratum's sorted run that stands on the target's cell or after it. Places
// are uniform, so it starts where the target would stand if they were evenly spaced and walks: about 3 steps at a total
// weight of 100, 80 at the largest.
func seek(run []point, target point) int {
	target = point(target.hash())
	i := int(slot(target, len(run)))
	for i > 0 && run[i-1] >= target {
		i--
	}
	for i < len(run) && run[i] < target {
		i++
	}
	return i
}

// A change is what sets two rings apart: units that the owner with that ID gains, or loses.
type change struct {
	id    string
	units []unit
	gain  bool
}

// merge fills points with those of old after the change. owners has the IDs of old's owners.
func (c change) merge(points, old []point, owners []string) {
	inParallel(strata, leastStrata(len(points)/strata), func(from, to int) {
		c.mergeStrata(points, old, owners, from, to)
	})
}

func (c change) mergeStrata(points, old []point, owners []string, from, to int) {
	w := len(old) / strata
	changed := make([]point, len(c.units))
	n := from * (len(points) / strata) // the next point's place
	for s := from; s < to; s++ {
		for i, u := range c.units {
			changed[i] = u.point(s)
		}
		slices.Sort(changed)
		run := old[s*w : (s+1)*w]
		copied := 0
		for _, p := range changed {
			at := max(copied, seek(run, p))
			for at < w && run[at].cell() == p.cell() && owners[run[at].owner()] < c.id {
				at++
			}
			n += copy(points[n:], run[copied:at])
			if c.gain {
				points[n] = p
				n++
			} else {
				at++ // it is p
			}
			copied = at
		}
		n += copy(points[n:], run[copied:])
	}
}
