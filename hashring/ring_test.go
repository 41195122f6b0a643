package hashring

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

func TestNewRefuses(t *testing.T) {
	heavy := make([]Member, MaxTotalWeight/MaxWeight+1)
	for i := range heavy {
		heavy[i] = Member{fmt.Sprint(i), MaxWeight}
	}
	for _, tt := range []struct {
		name    string
		members []Member
		opts    []Option
		want    error
		names   string // what the message says
	}{
		{"no ID", []Member{{"a", 1}, {"", 1}}, nil, ErrEmptyID, "without an ID"},
		{"duplicate", []Member{{"a", 1}, {"b", 1}, {"a", 1}}, nil, ErrDuplicateID, `"a"`},
		{"duplicate, other weight", []Member{{"a", 0}, {"a", 1}}, nil, ErrDuplicateID, `"a"`},
		{"negative weight", []Member{{"a", -1}}, nil, ErrWeight, "-1"},
		{"least weight", []Member{{"a", math.MinInt}}, nil, ErrWeight, `"a"`},
		{"weight above the limit", []Member{{"a", 1001}}, nil, ErrWeight, "1001"},
		{"greatest weight", []Member{{"a", math.MaxInt}, {"b", math.MaxInt}}, nil, ErrWeight, `"a"`},
		{"total weight", heavy, nil, ErrTotalWeight, "66000"},
		{"empty secret", nil, []Option{WithSecret(nil)}, ErrEmptySecret, "secret"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := New(tt.members, tt.opts...)
			if r != nil || !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.names) {
				t.Errorf("New = %v, %v; want %v that says %s", r, err, tt.want, tt.names)
			}
		})
	}
}

func TestWithRefuses(t *testing.T) {
	r := mustNew(t, []Member{{"a", 1}})
	for _, tt := range []struct {
		member Member
		want   error
	}{
		{Member{"", 1}, ErrEmptyID},
		{Member{"a", -1}, ErrWeight},
		{Member{"b", MaxWeight + 1}, ErrWeight},
	} {
		if got, err := r.With(tt.member); got != nil || !errors.Is(err, tt.want) {
			t.Errorf("With(%+v) = %v, %v; want %v", tt.member, got, err, tt.want)
		}
	}
}

func TestEmptyRings(t *testing.T) {
	for name, r := range map[string]*Ring{
		"nil":           nil,
		"zero":          {},
		"no members":    mustNew(t, nil),
		"last one left": mustNew(t, []Member{{"a", 1}}).Without("a"),
	} {
		t.Run(name, func(t *testing.T) {
			if r.Len() != 0 || len(r.Members()) != 0 || r.Owner("k") != "" || r.OwnerOfHash(1) != "" || r.Share("a") != 0 {
				t.Errorf("has members or owners: %v", r.Members())
			}
			if got := slices.Collect(r.Successors("k")); got != nil {
				t.Errorf("successors %q", got)
			}
			if got, want := r.Digest(), mustNew(t, nil).Digest(); got != want {
				t.Errorf("digest %s, want %s", got, want)
			}
			if got, want := r.Hash("k"), mustNew(t, []Member{{"a", 1}}).Hash("k"); got != want {
				t.Errorf("hash %#x, want %#x", got, want)
			}
			if got := r.Without("a"); got != r {
				t.Errorf("without a member that is not there: %v", got)
			}
			one, err := r.With(Member{"a", 1})
			if err != nil || one.Owner("k") != "a" {
				t.Fatalf("With = %v, %v", one, err)
			}
			want := []Move{{From: "", To: "a", Start: 0, End: math.MaxUint64}}
			if got := Diff(r, one); !slices.Equal(got, want) {
				t.Errorf("Diff to one member = %v, want %v", got, want)
			}
			want[0].From, want[0].To = "a", ""
			if got := Diff(one, r); !slices.Equal(got, want) {
				t.Errorf("Diff from one member = %v, want %v", got, want)
			}
			if got := Diff(r, nil); got != nil {
				t.Errorf("Diff of empty rings = %v", got)
			}
		})
	}
}

func TestWeightZeroIsListedAndOwnsNothing(t *testing.T) {
	r := mustNew(t, []Member{{"b", 0}, {"a", 1}})
	if got, want := r.Members(), []Member{{"a", 1}, {"b", 0}}; !slices.Equal(got, want) || r.Len() != 2 {
		t.Errorf("Members = %v, want %v", got, want)
	}
	if r.Share("a") != 1 || r.Share("b") != 0 || r.Share("c") != 0 {
		t.Errorf("shares %v, %v, %v", r.Share("a"), r.Share("b"), r.Share("c"))
	}
	if got := slices.Collect(r.Successors("k")); !slices.Equal(got, []string{"a"}) {
		t.Errorf("successors %q", got)
	}
	without := mustNew(t, []Member{{"a", 1}})
	if r.Digest() == without.Digest() || Diff(r, without) != nil {
		t.Error("a member of weight 0 counts for the digest and moves nothing")
	}
	if all := mustNew(t, []Member{{"a", 0}, {"b", 0}}); all.Owner("k") != "" || all.Len() != 2 {
		t.Errorf("owner %q among weights of 0", all.Owner("k"))
	}
}

func TestMembersAreCopied(t *testing.T) {
	in := []Member{{"b", 1}, {"a", 1}}
	r := mustNew(t, in)
	in[0].ID = "changed"
	r.Members()[0].ID = "changed"
	if got, want := r.Members(), []Member{{"a", 1}, {"b", 1}}; !slices.Equal(got, want) {
		t.Errorf("Members = %v, want %v", got, want)
	}
}

// finish derives from members, owners and points what New would, for rings whose points are made up.
func finish(r *Ring) {
	for number := range r.owners {
		r.order = append(r.order, uint16(number))
	}
	r.index = make(index, blocks(len(r.points)/strata))
	r.index.build(r.points)
	r.digest = digest(r.hash, r.members)
}

// Two members whose points all coincide are told apart by ID alone.
func TestTiesGoToTheLowerID(t *testing.T) {
	r := &Ring{members: []Member{{"a", 1}, {"b", 1}}, owners: []string{"a", "b"}}
	for s := range strata {
		for o := range uint16(2) {
			r.points = append(r.points, unit{seed: 1, owner: o}.point(s))
		}
	}
	finish(r)
	if r.Share("a") != 1 || r.Share("b") != 0 {
		t.Errorf("shares %v and %v, want 1 and 0", r.Share("a"), r.Share("b"))
	}
	for _, h := range naiveOf(r).edges(1000) {
		if owner := r.OwnerOfHash(h); owner != "a" {
			t.Fatalf("owner of %#x is %q", h, owner)
		}
	}
	if got := slices.Collect(r.Successors("k")); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("successors %q", got)
	}
	b := mustNew(t, []Member{{"b", 1}})
	for _, m := range Diff(r, b) {
		if m.From != "a" || m.To != "b" || m.Start != 0 || m.End != math.MaxUint64 {
			t.Errorf("Diff = %+v, want all from a to b", m)
		}
	}
}

// Nor does it matter in which order they came, and so which numbers they have.
func TestTiesOfThoseWhoComeAndGo(t *testing.T) {
	var points []point
	owners := []string{"b", "a", "c"}
	step := func(number uint16, gain bool) {
		u := unit{seed: 1, owner: number}
		c := change{owners[number], []unit{u, u}, gain}
		n := len(points) - 2*strata
		if gain {
			n = len(points) + 2*strata
		}
		next := make([]point, n)
		c.merge(next, points, owners)
		points = next
	}
	check := func(want ...uint16) {
		t.Helper()
		for s := range strata {
			for i, number := range want {
				if got := points[s*len(want)+i]; got != (unit{seed: 1, owner: number}).point(s) {
					t.Fatalf("point %d of stratum %d is of %q, want %q", i, s, owners[got.owner()], owners[number])
				}
			}
		}
	}
	step(0, true)
	step(1, true)
	step(2, true)
	check(1, 1, 0, 0, 2, 2)
	step(0, false)
	check(1, 1, 2, 2)
}

func TestSecret(t *testing.T) {
	members := equalMembers(0, 10)
	secret := []byte("correct horse battery staple")
	plain, keyed := mustNew(t, members), mustNew(t, members, WithSecret(secret))
	other := mustNew(t, members, WithSecret([]byte("correct horse battery stapler")))
	secret[0] = 'C'
	if again := mustNew(t, members, WithSecret([]byte("correct horse battery staple"))); again.Digest() != keyed.Digest() {
		t.Error("the ring kept the caller's slice")
	}
	if plain.Digest() == keyed.Digest() || keyed.Digest() == other.Digest() {
		t.Errorf("digests %s, %s, %s: want three", plain.Digest(), keyed.Digest(), other.Digest())
	}
	if plain.Hash("k") == keyed.Hash("k") || keyed.Hash("k") == other.Hash("k") {
		t.Error("the secret does not reach the hash")
	}
	grown, err := keyed.With(Member{"more", 1})
	if err != nil || grown.Hash("k") != keyed.Hash("k") || grown.Without("more").Digest() != keyed.Digest() {
		t.Errorf("With or Without lost the secret: %v", err)
	}
	empty := mustNew(t, nil, WithSecret([]byte("s")))
	if empty.Digest() == new(Ring).Digest() {
		t.Error("an empty ring with a secret has the digest of one without")
	}

	// Keys that are aimed at one member of the plain ring spread over the keyed one.
	target, hits, aimed := plain.Owner("aim"), 0, 0
	for _, key := range randomKeys(100_000) {
		if plain.Owner(key) == target {
			aimed++
			if keyed.Owner(key) == target {
				hits++
			}
		}
	}
	if share := float64(hits) / float64(aimed); aimed < 8000 || share > 0.13 {
		t.Errorf("%.0f %% of %d aimed keys hit with the secret, want about 10 %%", share*100, aimed)
	}
}

// From the reference implementation's vectors: key 00 01 .. 0f, message 00 01 .. of that length.
func TestSipHashVectors(t *testing.T) {
	var key [16]byte
	var message []byte
	for i := range key {
		key[i] = byte(i)
	}
	want := map[int]uint64{0: 0x726fdb47dd0e0e31, 1: 0x74f839c593dc67fd, 7: 0xab0200f58b01d137, 8: 0x93f5f5799a932462,
		15: 0xa129ca6149be45e5}
	for n := range 16 {
		got := sipHash(binary.LittleEndian.Uint64(key[:8]), binary.LittleEndian.Uint64(key[8:]), string(message))
		if w, ok := want[n]; ok && got != w {
			t.Errorf("%d bytes: %#x, want %#x", n, got, w)
		}
		message = append(message, byte(n))
	}
}

func TestNothingAllocates(t *testing.T) {
	r := mustNew(t, equalMembers(0, 100))
	keyed := mustNew(t, equalMembers(0, 100), WithSecret([]byte("secret")))
	keys := randomKeys(1024)
	i, n := 0, 0
	next := func() string { i++; return keys[i%len(keys)] }
	for name, f := range map[string]func(){
		"Owner":       func() { r.Owner(next()) },
		"Owner keyed": func() { keyed.Owner(next()) },
		"OwnerOfHash": func() { r.OwnerOfHash(uint64(i) * gamma) },
		"Hash":        func() { r.Hash(next()) },
		"Hash keyed":  func() { keyed.Hash(next()) },
		"Digest":      func() { r.Digest() },
		"Share":       func() { r.Share("set0-member7") },
		"Successors, all": func() {
			for range r.Successors(next()) {
				n++
			}
		},
		"Successors, 2": func() {
			for range r.Successors(next()) {
				if n++; n%2 == 0 {
					break
				}
			}
		},
	} {
		if allocs := testing.AllocsPerRun(1000, f); allocs != 0 {
			t.Errorf("%s: %v allocations, want 0", name, allocs)
		}
	}
}

// Above 4,096 owners Successors keeps what it has seen on the heap. A ring with two points in each stratum shows as much as
// one that New takes 300 MiB for.
func TestManyOwners(t *testing.T) {
	t.Parallel()
	const owners = 4200
	r := new(Ring)
	for o := range owners {
		r.owners = append(r.owners, fmt.Sprintf("m%04d", o))
		r.members = append(r.members, Member{r.owners[o], 1})
	}
	for i := range 2 * strata {
		r.points = append(r.points, unit{owner: uint16(i % owners)}.point(i/2)+point(i%2)<<ownerBits)
	}
	finish(r)
	for _, key := range randomKeys(20) {
		seen := map[string]bool{}
		for id := range r.Successors(key) {
			if len(seen) == 0 && id != r.Owner(key) {
				t.Errorf("the first successor is %s, the owner %s", id, r.Owner(key))
			}
			if seen[id] {
				t.Fatalf("%s comes twice", id)
			}
			seen[id] = true
		}
		if len(seen) != owners {
			t.Fatalf("%d successors, want %d", len(seen), owners)
		}
	}
}
