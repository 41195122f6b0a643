package main

import (
	"cmp"
	"math"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// What proxies do, in the few lines that decide who owns a key. Parameters and rules were checked against their sources
// (nginx at 017cf96c, HAProxy at 50872daa, 3.5-dev5, Envoy at 0d2acde2 and a6b64f4b, its
// headers at 8d2e41cd and 8f663f79):
//
//   - nginx, ngx_http_upstream_hash_module.c: 160 points per unit of weight; the first one at or after the hash. Its points
//     are a chain of CRC-32, in which each is seeded by the one before, and of those that coincide one is kept.
//   - HAProxy, lb_chash.c and backend-t.h: 16 points (BE_WEIGHT_SCALE) per unit of weight, whose default is 1; of the points
//     at both sides the nearer one, and the one before where both are as near.
//   - Envoy, ring_hash_lb.cc and .h: DefaultMinRingSize is 1,024 points in all; see inAll.
//   - Envoy, maglev_lb.cc and .h: DefaultTableSize is 65,537; see maglev.
//
// Their own hashes (CRC-32, 32 bits of HAProxy's own, xxHash64 of address and number) are left out: rules are compared here.

// pointRing has points of 64 bits, in order, and their owners.
type pointRing struct {
	at      []uint64
	owner   []uint16
	ids     []string
	nearest bool // the closest point of both sides owns a hash, not the next one
}

// newPointRing gives each member as many points as count says.
func newPointRing(members []member, count func(i int) int, nearest bool) *pointRing {
	type point struct {
		at    uint64
		owner uint16
	}
	r := &pointRing{nearest: nearest}
	var points []point
	for i, m := range members {
		r.ids = append(r.ids, m.id)
		seed := xxhash.Sum64String(m.id)
		for p := range count(i) {
			points = append(points, point{mix(seed + uint64(p)*0x9e3779b97f4a7c15), uint16(i)})
		}
	}
	slices.SortFunc(points, func(a, b point) int { return cmp.Compare(a.at, b.at) })
	r.at, r.owner = make([]uint64, len(points)), make([]uint16, len(points))
	for i, p := range points {
		r.at[i], r.owner[i] = p.at, p.owner
	}
	return r
}

// mix is the output function of SplitMix64.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (r *pointRing) Owner(key string) string {
	h := xxhash.Sum64String(key)
	low, high := 0, len(r.at)
	for low < high {
		if middle := (low + high) / 2; r.at[middle] < h {
			low = middle + 1
		} else {
			high = middle
		}
	}
	if low == len(r.at) {
		low = 0
	}
	if r.nearest {
		before := low - 1
		if before < 0 {
			before = len(r.at) - 1
		}
		if h-r.at[before] <= r.at[low]-h {
			low = before
		}
	}
	return r.ids[r.owner[low]]
}

// shares adds up the arcs that each member owns.
func (r *pointRing) shares() map[string]float64 {
	shares := make(map[string]float64)
	for i, at := range r.at {
		before := (i + len(r.at) - 1) % len(r.at)
		arc := float64(at-r.at[before]) / (1 << 64) // across the end of the hash space, too
		if r.nearest {
			shares[r.ids[r.owner[before]]] += arc / 2
			arc /= 2
		}
		shares[r.ids[r.owner[i]]] += arc
	}
	return shares
}

// perWeight gives k points for each unit of weight.
func perWeight(members []member, k int) func(int) int {
	return func(i int) int { return k * members[i].weight }
}

// inAll is how Envoy deals out its points: at least that many in all, in proportion to weights, scaled so that the lightest
// member gets a whole number. (It adds up in floating point as it comes; the 1e-6 here spares it a point too many by rounding.)
// When members come and go, the number that each of the others gets changes now and then.
func inAll(members []member, least int) func(int) int {
	total, lightest := 0, math.MaxInt
	for _, m := range members {
		total += m.weight
		lightest = min(lightest, m.weight)
	}
	part := float64(lightest) / float64(total)
	scale := math.Ceil(part*float64(least)) / part
	counts := make([]int, len(members))
	target, dealt := 0.0, 0
	for i, m := range members {
		target += scale * float64(m.weight) / float64(total)
		for float64(dealt) < target-1e-6 {
			counts[i]++
			dealt++
		}
	}
	return func(i int) int { return counts[i] }
}

// maglev is the table of Eisenbud and others' "Maglev", 2016, with weights as Envoy has them: members take turns to claim
// slots, each in an order of its own, and a lighter one sits some turns out. Envoy packs the slots into as few bits as the
// number of members needs; here each has 16, which takes more memory and less time.
type maglev struct {
	slots []uint16
	ids   []string
}

const maglevSlots = 65537 // the paper's and Envoy's: a prime

func newMaglev(members []member) *maglev {
	const free = math.MaxUint16
	// They take turns in the order of their addresses with Envoy, so that the order in which they came does not matter.
	members = slices.SortedFunc(slices.Values(members), func(a, b member) int { return cmp.Compare(a.id, b.id) })
	t := &maglev{slots: make([]uint16, maglevSlots)}
	heaviest := 0
	for i := range t.slots {
		t.slots[i] = free
	}
	offset, skip := make([]uint64, len(members)), make([]uint64, len(members))
	next, due := make([]uint64, len(members)), make([]int, len(members))
	for i, m := range members {
		t.ids = append(t.ids, m.id)
		h := xxhash.Sum64String(m.id)
		offset[i], skip[i] = mix(h)%maglevSlots, mix(h+1)%(maglevSlots-1)+1
		heaviest = max(heaviest, m.weight)
	}
	filled := 0
	for turn := 1; filled < maglevSlots; turn++ {
		for i, m := range members {
			if turn*m.weight < due[i] || filled == maglevSlots {
				continue
			}
			due[i] += heaviest
			for {
				slot := (offset[i] + next[i]*skip[i]) % maglevSlots
				next[i]++
				if t.slots[slot] == free {
					t.slots[slot] = uint16(i)
					break
				}
			}
			filled++
		}
	}
	return t
}

func (t *maglev) Owner(key string) string {
	return t.ids[t.slots[xxhash.Sum64String(key)%maglevSlots]]
}

func (t *maglev) shares() map[string]float64 {
	shares := make(map[string]float64)
	for _, o := range t.slots {
		shares[t.ids[o]] += 1.0 / maglevSlots
	}
	return shares
}
