package hashring

import (
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// check returns an error unless the index is, in all that is looked at, the one that is built from the points.
func (x index) check(points []point) error {
	built := make(index, blocks(len(points)/strata))
	built.build(points)
	if len(x) != len(built) {
		return fmt.Errorf("%d blocks, want %d", len(x), len(built))
	}
	for b := range x {
		for l := range uint64(lanes) {
			place, want := x[b].place(l), built[b].place(l)
			if place != want || x[b].owners[l] != built[b].owners[l] {
				return fmt.Errorf("block %d of %d, lane %d: place %d of number %d, want %d of %d", b, len(x), l,
					place, x[b].owners[l], want, built[b].owners[l])
			}
			if place == lastPlace {
				break // nobody looks at what follows
			}
		}
	}
	return nil
}

// Members come and go, among them those with the first and the last point of all.
func TestDerivedIndexIsTheOneThatIsBuilt(t *testing.T) {
	t.Parallel()
	for _, members := range []int{16, 96} { // with one more they have as many blocks
		r := mustNew(t, equalMembers(0, members))
		step := func(next *Ring) {
			t.Helper()
			if len(next.index) != len(r.index) {
				t.Fatalf("%d blocks after %d: this tests nothing", len(next.index), len(r.index))
			}
			if err := next.index.check(next.points); err != nil {
				t.Fatalf("%d members: %v", members, err)
			}
			if len(next.owners) > members+1 {
				t.Fatalf("%d numbers for %d members: none is inherited", len(next.owners), next.Len())
			}
			r = next
		}
		with := func(id string) *Ring {
			next, err := r.With(Member{ID: id, Weight: 1})
			if err != nil {
				t.Fatal(err)
			}
			return next
		}
		step(with("one more"))
		for range 3 {
			for _, p := range []point{r.points[0], r.points[len(r.points)-1]} {
				id := r.owners[p.owner()]
				step(r.Without(id))
				step(with(id))
			}
		}
	}
}

// One point comes or goes, where blocks at the ends are empty and those in the middle have too many points.
func TestOnePointRenewsItsBlocks(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(5, 6))
	draw := func(owner uint16) point { return point(rng.Uint64()/3+1<<62)&^ownerMask | point(owner) }
	var points []point
	for range strata {
		points = append(points, draw(1))
	}
	slices.Sort(points)
	check := func(at int, changed point, after []point) {
		t.Helper()
		x := make(index, blocks(1))
		x.build(points)
		x.renew(after, changed, 0, len(x))
		x.fill(after, x.block(after[len(after)-1]), len(x))
		if err := x.check(after); err != nil {
			t.Fatalf("point %d: %v", at, err)
		}
	}
	for _, p := range []point{1<<61 | 2, 2, math.MaxUint64&^ownerMask | 2, draw(2), draw(2), draw(2)} {
		at, _ := slices.BinarySearch(points, p)
		check(at, p, slices.Insert(slices.Clone(points), at, p))
		points = slices.Insert(points, at, p)
	}
	for _, at := range []int{0, 1, 100, 2000, len(points) - 1} {
		check(at, points[at], slices.Delete(slices.Clone(points), at, at+1))
	}
}

// Each processor derives some of the blocks, and none minds where those of the next one begin.
func TestAnyBlocksAreDerivedAlone(t *testing.T) {
	t.Parallel()
	for _, members := range []int{16, 96} {
		r := mustNew(t, equalMembers(0, members))
		m := Member{ID: "one more", Weight: 1}
		more, err := r.With(m)
		if err != nil {
			t.Fatal(err)
		}
		units := appendUnits(nil, m, uint16(members))
		for _, tt := range []struct {
			from, to *Ring
			change   change
		}{{r, more, change{m.ID, units, true}}, {more, r, change{m.ID, units, false}}} {
			for _, each := range []int{1, 7} {
				x := make(index, len(r.index))
				for from := 0; from < len(x); from += each {
					to := min(from+each, len(x))
					x.deriveBlocks(tt.from.index, tt.to.points, tt.change, from, to)
					if to < len(x) && x[to] != (block{}) {
						t.Fatalf("%d members: block %d changed along with %d to %d", members, to, from, to-1)
					}
				}
				if err := x.check(tt.to.points); err != nil {
					t.Fatalf("%d members, %d blocks at a time: %v", members, each, err)
				}
			}
		}
	}
}

// Owner is one cache line for nearly every key, which is what its speed rests on, and agrees with the points there.
func TestIndexAnswersNearlyEveryHash(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 10, 100, 143, 1000} { // 143 fill their blocks more than any others
		r := mustNew(t, equalMembers(0, n))
		missed := 0
		const hashes = 200_000
		for i := range uint64(hashes) {
			h := mix(i*gamma) &^ ownerMask
			if owner, ok := r.index.lookup(h); !ok {
				missed++
			} else if want := r.points[r.find(h)].owner(); owner != want {
				t.Fatalf("%d members: owner of %#x is number %d by the index, %d by the points", n, h, owner, want)
			}
		}
		if part := float64(missed) / hashes; part > 0.015 {
			t.Errorf("%d members: %.2f %% of hashes need the points", n, part*100)
		}
	}
}

// A few cells reach over the border of two places or blocks. All their hashes have the owner of the point there.
func TestCellsAreNotSplit(t *testing.T) {
	t.Parallel()
	r := mustNew(t, equalMembers(0, 300))
	for i, p := range r.points {
		if i > 0 && r.points[i-1].cell() == p.cell() {
			continue
		}
		for _, h := range []uint64{p.cell() << ownerBits, p.cell()<<ownerBits | ownerMask} {
			if got := r.owner(h); got != p.owner() {
				t.Fatalf("owner of %#x is number %d, want %d", h, got, p.owner())
			}
		}
	}
}

// A block is a cache line, and the comparisons of lookup leave each lane to itself only while these hold.
func TestBlockLayout(t *testing.T) {
	if size := reflect.TypeFor[block]().Size(); size != 64 {
		t.Errorf("a block has %d bytes, want a cache line of 64", size)
	}
	if bits.OnesCount64(tops) != 4 || tops>>placeBits != each {
		t.Error("lane masks disagree with placeBits")
	}
}
