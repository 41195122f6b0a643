// Package hashring maps keys to members by consistent hashing, so that every process that knows the members computes
// the same owner, in any language, and few keys move when members come and go.
//
//	ring, err := hashring.New([]hashring.Member{{ID: "b1", Weight: 1}, {ID: "b2", Weight: 2}})
//	owner := ring.Owner("alice")
//	for id := range ring.Successors("alice") { ... } // the owner, then who is next in line
//
// A [Ring] is immutable: share it, swap it behind an atomic pointer. [Ring.With] and [Ring.Without] derive others, and
// [Diff] names the ranges of hashes that changed hands. A nil *Ring is the empty ring, which owns nothing.
//
// # Contract
//
// Rings of the same members, weights and secret are the same ring, in whatever order and by whatever steps they were
// built, on every machine and release of version 1 of SPEC.md; [Ring.Digest] is equal then. No floating-point number
// decides an owner. The file testdata/vectors.json holds golden vectors for implementations in other languages.
//
// A member that comes, goes or changes its weight moves keys to or from itself; between two others none ever moves.
// When it goes, its keys spread over all that are left.
//
// The largest of 100 equal members owns about 1.04 times the mean, of 10 about 1.02. Shares follow weights to within
// 6 %. DESIGN.md has the measurements, and what else was compared.
//
// Keys are hashed with xxHash64, which is fast and known everywhere, and which anyone can aim: who may choose keys can
// choose many that one member owns. [WithSecret] puts SipHash-2-4 in its place, which nobody can aim without the secret.
//
// # Limits
//
// IDs are any bytes but none. A weight is 0 to [MaxWeight] and their sum at most [MaxTotalWeight]; each unit costs about
// 57 KiB of memory, so 1,000 members of weight 1 take 56 MiB. A change copies the ring: 1.5 to 3.5 ms for 100 units of
// weight, on as many processors as there are. The ring knows nothing of load or health: leave out members that should own
// nothing, or give them weight 0.
package hashring
