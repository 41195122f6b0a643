package hashring

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// genMembers draws up to 8 members of small weights, in any order, IDs of any bytes.
func genMembers(t *rapid.T) []Member {
	ids := rapid.SliceOfNDistinct(rapid.StringN(1, 8, -1), 0, 8, rapid.ID[string]).Draw(t, "ids")
	members := make([]Member, len(ids))
	for i, id := range ids {
		members[i] = Member{ID: id, Weight: rapid.IntRange(0, 3).Draw(t, "weight")}
	}
	return members
}

func genRing(t *rapid.T) *Ring {
	r, err := New(genMembers(t))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// genChange draws a ring and one that a single member's coming, going or new weight makes of it.
func genChange(t *rapid.T) (before, after *Ring, id string) {
	before = genRing(t)
	m := Member{ID: rapid.StringN(1, 8, -1).Draw(t, "id"), Weight: rapid.IntRange(0, 6).Draw(t, "new weight")}
	if before.Len() > 0 && rapid.Bool().Draw(t, "present") {
		m.ID = rapid.SampledFrom(before.Members()).Draw(t, "member").ID
		if rapid.Bool().Draw(t, "leaves") {
			return before, before.Without(m.ID), m.ID
		}
	}
	after, err := before.With(m)
	if err != nil {
		t.Fatal(err)
	}
	return before, after, m.ID
}

func genHashes(t *rapid.T) []uint64 {
	return rapid.SliceOfN(rapid.Uint64(), 200, 200).Draw(t, "hashes")
}

// same fails unless the rings are the same, but for the numbers that they give their owners.
func same(t *rapid.T, a, b *Ring) {
	t.Helper()
	if a.Digest() != b.Digest() || !slices.Equal(a.members, b.members) || a.hash != b.hash || !slices.Equal(a.ids(), b.ids()) ||
		!slices.Equal(naiveOf(a), naiveOf(b)) {
		t.Fatalf("rings differ: %v and %v", a.members, b.members)
	}
	for _, r := range []*Ring{a, b} {
		if err := r.index.check(r.points); err != nil {
			t.Fatal(err)
		}
		for number, id := range r.owners {
			if taken := slices.Contains(r.order, uint16(number)); taken != (id != "") {
				t.Fatalf("number %d of %q: taken %v", number, id, taken)
			}
		}
	}
}

// ids returns the IDs of the members that have a weight, sorted.
func (r *Ring) ids() []string {
	ids := make([]string, len(r.order))
	for i, number := range r.order {
		ids[i] = r.owners[number]
	}
	return ids
}

func TestOwnerIsTheNaiveOne(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		members := genMembers(t)
		r, err := New(members)
		if err != nil {
			t.Fatal(err)
		}
		naive := newNaive(members)
		if !slices.Equal(naiveOf(r), naive) {
			t.Fatal("points are not those of the specification")
		}
		for _, h := range append(genHashes(t), naive.edges(500)...) {
			if got, want := r.OwnerOfHash(h), naive.owner(h); got != want {
				t.Fatalf("OwnerOfHash(%#x) = %q, want %q", h, got, want)
			}
		}
	})
}

func TestOrderDoesNotMatter(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		members := genMembers(t)
		a, err := New(members)
		if err != nil {
			t.Fatal(err)
		}
		b, err := New(rapid.Permutation(members).Draw(t, "order"))
		if err != nil {
			t.Fatal(err)
		}
		same(t, a, b)
	})
}

func TestWithAndWithoutEqualNew(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		_, r, id := genChange(t)
		if rapid.Bool().Draw(t, "more") { // so that owners inherit numbers
			more, err := r.With(Member{ID: id + "'", Weight: rapid.IntRange(0, 3).Draw(t, "weight")})
			if err != nil {
				t.Fatal(err)
			}
			r = more
		}
		anew, err := New(r.Members())
		if err != nil {
			t.Fatal(err)
		}
		same(t, r, anew)
	})
}

func TestAChangeMovesKeysOfThatMemberOnly(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		before, after, id := genChange(t)
		for _, h := range append(genHashes(t), naiveOf(before).edges(300)...) {
			if from, to := before.OwnerOfHash(h), after.OwnerOfHash(h); from != to && from != id && to != id {
				t.Fatalf("hash %#x moves from %q to %q, though only %q changed", h, from, to, id)
			}
		}
		for _, m := range Diff(before, after) {
			if m.From != id && m.To != id {
				t.Fatalf("%+v, though only %q changed", m, id)
			}
		}
	})
}

func TestMoreWeightOnlyGains(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		before := genRing(t)
		m := Member{ID: "grows", Weight: rapid.IntRange(0, 3).Draw(t, "weight")}
		light, err := before.With(m)
		if err != nil {
			t.Fatal(err)
		}
		m.Weight += rapid.IntRange(1, 4).Draw(t, "more")
		heavy, err := light.With(m)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range Diff(light, heavy) {
			if d.To != m.ID {
				t.Fatalf("%+v, though %q only gained weight", d, m.ID)
			}
		}
	})
}

func TestDiffAgreesWithOwnerAndShare(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		before, after := genRing(t), genRing(t)
		if rapid.Bool().Draw(t, "related") {
			before, after, _ = genChange(t)
		}
		moves := Diff(before, after)
		gain := map[string]int64{} // cells
		for i, m := range moves {
			if m.From == m.To || m.Start > m.End || m.Start&ownerMask != 0 || ^m.End&ownerMask != 0 {
				t.Fatalf("malformed: %+v", m)
			}
			if i > 0 && (moves[i-1].End >= m.Start || moves[i-1].meets(m)) {
				t.Fatalf("not sorted, disjoint and merged: %+v, %+v", moves[i-1], m)
			}
			n := int64(m.End>>ownerBits - m.Start>>ownerBits + 1)
			gain[m.From] -= n
			gain[m.To] += n
		}
		hashes := append(genHashes(t), naiveOf(before).edges(300)...)
		for _, h := range append(hashes, naiveOf(after).edges(300)...) {
			from, to := before.OwnerOfHash(h), after.OwnerOfHash(h)
			i, _ := slices.BinarySearchFunc(moves, h, func(m Move, h uint64) int {
				if m.End < h {
					return -1
				}
				return 1
			})
			if moved := i < len(moves) && moves[i].Start <= h; moved != (from != to) {
				t.Fatalf("hash %#x: Diff says moved: %v, owners %q and %q", h, moved, from, to)
			} else if moved && (moves[i].From != from || moves[i].To != to) {
				t.Fatalf("hash %#x: %+v, owners %q and %q", h, moves[i], from, to)
			}
		}
		for _, m := range append(before.Members(), after.Members()...) {
			if got, want := gain[m.ID], int64((after.Share(m.ID)-before.Share(m.ID))*cells); got != want {
				t.Fatalf("%q gains %d cells by Diff, %d by Share", m.ID, got, want)
			}
		}
	})
}

func TestSharesAddUp(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := genRing(t)
		var sum float64 // of multiples of 2^-48: exact
		for _, m := range r.Members() {
			share := r.Share(m.ID)
			if (share > 0) != (m.Weight > 0) {
				t.Fatalf("%+v has share %v", m, share)
			}
			sum += share
		}
		if want := float64(min(len(r.order), 1)); sum != want {
			t.Fatalf("shares add up to %v, want %v", sum, want)
		}
	})
}

func TestSuccessorsWalkTheRing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := genRing(t)
		key := rapid.String().Draw(t, "key")
		got := slices.Collect(r.Successors(key))
		if want := naiveOf(r).successors(r.Hash(key)); !slices.Equal(got, want) {
			t.Fatalf("Successors(%q) = %q, want %q", key, got, want)
		}
		if len(got) != len(r.order) {
			t.Fatalf("%d successors of %d", len(got), len(r.owners))
		}
		// Each is who owns the key once those before it have left.
		for _, id := range got {
			if owner := r.Owner(key); owner != id {
				t.Fatalf("owner is %q, want %q", owner, id)
			}
			r = r.Without(id)
		}
	})
}

// TestAnyPoints leaves the mixed sequence aside: rings whose points crowd, coincide, or leave blocks empty.
func TestAnyPoints(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const owners = 5
		w := rapid.IntRange(1, 12).Draw(t, "weight")
		spread := rapid.SampledFrom([]uint64{0, 1, 2, 3, 100, 1 << 20, 1 << 30, 1<<36 - 1}).Draw(t, "spread")
		at := rapid.SampledFrom([]uint64{0, 1 << 10, 1 << 35, 1<<36 - 1}).Draw(t, "at")
		seed := rapid.Uint64().Draw(t, "seed")
		build := func() *Ring {
			r := new(Ring)
			for o := range owners {
				r.owners = append(r.owners, fmt.Sprintf("m%d", o))
				r.members = append(r.members, Member{r.owners[o], 1})
			}
			for s := range uint64(strata) {
				for range w {
					seed += gamma
					cell := min(at+mix(seed)%(spread+1), 1<<36-1)
					r.points = append(r.points, point(s<<52|cell<<16|mix(seed+1)%owners))
				}
				slices.Sort(r.points[len(r.points)-w:])
			}
			finish(r)
			return r
		}
		a, b := build(), build()
		naive := naiveOf(a)
		var moved, sum uint64
		for _, h := range append(genHashes(t), naive.edges(500)...) {
			if got, want := a.OwnerOfHash(h), naive.owner(h); got != want {
				t.Fatalf("OwnerOfHash(%#x) = %q, want %q", h, got, want)
			}
		}
		for _, m := range Diff(a, b) {
			if m.From != a.OwnerOfHash(m.Start) || m.From != a.OwnerOfHash(m.End) ||
				m.To != b.OwnerOfHash(m.Start) || m.To != b.OwnerOfHash(m.End) {
				t.Fatalf("%+v, owners %q and %q", m, a.OwnerOfHash(m.Start), b.OwnerOfHash(m.Start))
			}
			moved += m.End - m.Start + 1
		}
		for _, m := range Diff(b, a) {
			moved -= m.End - m.Start + 1
		}
		for _, id := range a.owners {
			sum += uint64(a.Share(id) * cells)
		}
		if moved != 0 || sum != cells {
			t.Fatalf("Diff back and forth is off by %d, shares add up to %d cells", moved, sum)
		}
	})
}

func FuzzOwner(f *testing.F) {
	members := []Member{{"a", 1}, {"b", 2}, {"c", 0}, {"d", 7}}
	plain := mustNew(f, members)
	keyed := mustNew(f, members, WithSecret([]byte("fuzz")))
	naive := newNaive(members)
	for _, key := range []string{"", "a", "user-1", "\x00\xff", strings.Repeat("long", 100)} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		for _, r := range []*Ring{plain, keyed} {
			h := r.Hash(key)
			owner := r.Owner(key)
			if owner != naive.owner(h) || owner != r.OwnerOfHash(h) {
				t.Fatalf("Owner(%q) = %q, OwnerOfHash %q, want %q", key, owner, r.OwnerOfHash(h), naive.owner(h))
			}
			if all := slices.Collect(r.Successors(key)); all[0] != owner || len(all) != 3 {
				t.Fatalf("Successors(%q) = %q, want three from %q", key, all, owner)
			}
		}
	})
}
