package hashring

import "iter"

// Hash returns the key's place in the hash space: xxHash64, or SipHash-2-4 of a ring with a secret. Rings with the
// same secret, or none, agree on it whoever their members are. Its cost is linear in the key, about 10 ns for 16 bytes
// (keyed: 30), without allocation.
func (r *Ring) Hash(key string) uint64 {
	if r == nil {
		return hasher{}.sum(key)
	}
	return r.hash.sum(key)
}

// Owner returns the ID of the member that owns the key; "" only where no member has a weight. It takes one hash and,
// for 99 of 100 keys, one cache line, whatever the number of members; it does not allocate.
func (r *Ring) Owner(key string) string {
	if r == nil || len(r.index) == 0 {
		return ""
	}
	return r.owners[r.owner(r.hash.sum(key))]
}

// OwnerOfHash returns the ID of the member that owns the hash: Owner(key) is OwnerOfHash(Hash(key)). The lower 16 bits
// of the hash do not matter. Cost as for Owner.
func (r *Ring) OwnerOfHash(h uint64) string {
	if r == nil || len(r.index) == 0 {
		return ""
	}
	return r.owners[r.owner(h)]
}

// owner returns the number of the hash's owner. The ring has points.
func (r *Ring) owner(h uint64) uint16 {
	h &^= ownerMask
	if o, ok := r.index.lookup(h); ok {
		return o
	}
	return r.points[r.find(h)].owner()
}

// find returns the index of the first point whose cell is that of h or after it, going round at the end; the ring has
// points.
func (r *Ring) find(h uint64) int {
	w := len(r.points) / strata
	first := int(h>>(64-strataBits)) * w
	i := first + seek(r.points[first:first+w], point(h))
	if i == len(r.points) {
		return 0
	}
	return i
}

// Successors yields the IDs of the members that have a weight, each once, in the order in which a walk from the key
// meets them: first the owner, then who owns the key once the owner has left, and so on. The first costs what Owner
// costs, twice; all n of equal weight take about n ln n steps of two or three nanoseconds. Ranging over it does not
// allocate on rings of up to 4,096 owners, and once beyond that.
func (r *Ring) Successors(key string) iter.Seq[string] {
	return func(yield func(string) bool) { r.walk(key, yield) }
}

func (r *Ring) walk(key string, yield func(string) bool) {
	if r == nil || len(r.points) == 0 {
		return
	}
	const word = 64
	var few [4096 / word]uint64 // on the stack
	seen := few[:]
	if n := len(r.owners); n > len(few)*word {
		seen = make([]uint64, (n+word-1)/word)
	}
	i := r.find(r.hash.sum(key))
	for left := len(r.order); left > 0; {
		o := r.points[i].owner()
		if bit := uint64(1) << (o % word); seen[o/word]&bit == 0 {
			seen[o/word] |= bit
			left--
			if !yield(r.owners[o]) {
				return
			}
		}
		if i++; i == len(r.points) {
			i = 0
		}
	}
}
