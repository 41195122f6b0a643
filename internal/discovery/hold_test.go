package discovery

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestHold(t *testing.T) {
	now := time.Unix(1000, 0)
	a, b := member("a"), member("b")
	a.Incarnation, b.Incarnation = 1, 1
	edit := func(m Member, change func(*Member)) Member { change(&m); return m }
	critical := func(m *Member) { m.Health = Critical }
	b2 := edit(b, func(m *Member) { m.Incarnation = 2 })
	warned := edit(b, func(m *Member) { m.Health, m.Weight = Warning, 3 })

	tests := map[string]struct {
		before, fresh, want []Member
		held                []string
	}{
		"nothing is wrong":              {[]Member{a, b}, []Member{a, b}, []Member{a, b}, nil},
		"an empty catalogue":            {[]Member{a, b}, nil, []Member{a, b}, []string{"a", "b"}},
		"all critical":                  {[]Member{a, b}, []Member{edit(a, critical), edit(b, critical)}, []Member{a, b}, []string{"a", "b"}},
		"one missing, one critical":     {[]Member{a, b}, []Member{edit(b, critical)}, []Member{a, b}, []string{"a", "b"}},
		"a newcomer counts at once":     {[]Member{a}, []Member{b}, []Member{a, b}, []string{"a"}},
		"a sick newcomer is sick":       {[]Member{a}, []Member{a, edit(b, critical)}, []Member{a, edit(b, critical)}, nil},
		"draining counts at once":       {[]Member{a, b}, []Member{a, edit(b, func(m *Member) { m.State = Draining })}, []Member{a, edit(b, func(m *Member) { m.State = Draining })}, nil},
		"draining and critical, too":    {[]Member{b}, []Member{edit(b, func(m *Member) { m.State, m.Health = Draining, Critical })}, []Member{edit(b, func(m *Member) { m.State, m.Health = Draining, Critical })}, nil},
		"a new incarnation counts":      {[]Member{b}, []Member{b2}, []Member{b2}, nil},
		"a new one that is critical":    {[]Member{b}, []Member{edit(b2, critical)}, []Member{edit(b2, critical)}, nil},
		"weight counts":                 {[]Member{b}, []Member{edit(b, func(m *Member) { m.Weight = 5 })}, []Member{edit(b, func(m *Member) { m.Weight = 5 })}, nil},
		"weight of a critical one":      {[]Member{b}, []Member{edit(b, func(m *Member) { m.Weight, m.Health = 5, Critical })}, []Member{edit(b, func(m *Member) { m.Weight = 5 })}, []string{"b"}},
		"a warned one stays as it was":  {[]Member{warned}, []Member{edit(warned, func(m *Member) { m.Weight, m.Health = 9, Critical })}, []Member{warned}, []string{"b"}},
		"an address counts":             {[]Member{b}, []Member{edit(b, func(m *Member) { m.Addr, m.Health = "new:1", Critical })}, []Member{edit(b, func(m *Member) { m.Addr = "new:1" })}, []string{"b"}},
		"who was out is not held":       {[]Member{a, edit(b, critical)}, []Member{a}, []Member{a}, nil},
		"a drainer that left is gone":   {[]Member{a, edit(b, func(m *Member) { m.State = Draining })}, []Member{a}, []Member{a}, nil},
		"no ring before, nothing to do": {nil, []Member{edit(a, critical)}, []Member{edit(a, critical)}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := newHold(now, test.before)
			for _, at := range []time.Duration{0, time.Second, recoveryHold - 1} {
				fresh := slices.Clone(test.fresh)
				got, held := h.apply(now.Add(at), fresh)
				if !slices.Equal(got, test.want) {
					t.Errorf("after %v: %v", at, mismatch(got, test.want))
				}
				if !slices.Equal(held, test.held) {
					t.Errorf("after %v: held %q, want %q", at, held, test.held)
				}
				if !slices.Equal(fresh, test.fresh) {
					t.Error("the catalogue's own members changed")
				}
			}
			if got, held := h.apply(now.Add(recoveryHold), test.fresh); !slices.Equal(got, test.fresh) || held != nil {
				t.Errorf("at the end: %v, held %q", mismatch(got, test.fresh), held)
			}
		})
	}
}

func TestNoHold(t *testing.T) {
	var h hold
	if got, held := h.apply(time.Now(), nil); len(got) != 0 || held != nil {
		t.Fatalf("%v %v", got, held)
	}
}

// TestHoldLaw: under a hold, whatever the catalogue says, nobody leaves the ring but by a word of their own: another state, weight 0, or
// another incarnation.
func TestHoldLaw(t *testing.T) {
	gen := rapid.SliceOfDistinct(rapid.Custom(func(t *rapid.T) Member {
		m := member(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "id"))
		m.Incarnation = rapid.Uint64Range(1, 2).Draw(t, "incarnation")
		m.State = rapid.SampledFrom([]State{Serving, Serving, Draining}).Draw(t, "state")
		m.Health = rapid.SampledFrom([]Health{Passing, Warning, Critical}).Draw(t, "health")
		m.Weight = rapid.IntRange(0, 2).Draw(t, "weight")
		return m
	}), func(m Member) string { return m.ID })
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1000, 0)
		before, fresh := gen.Draw(t, "before"), gen.Draw(t, "fresh")
		sortMembers(before)
		sortMembers(fresh)
		got, held := newHold(now, before).apply(now, slices.Clone(fresh))
		find := func(list []Member, id string) (Member, bool) {
			i := slices.IndexFunc(list, func(m Member) bool { return m.ID == id })
			if i < 0 {
				return Member{}, false
			}
			return list[i], true
		}
		for _, was := range before {
			is, there := find(got, was.ID)
			said, spoke := find(fresh, was.ID)
			ownWord := spoke && (said.State != Serving || said.Weight == 0 || said.Incarnation != was.Incarnation)
			if was.InRing() && !ownWord && (!there || !is.InRing()) {
				t.Fatalf("%q left the ring: %s", was.ID, show(got))
			}
		}
		for _, said := range fresh {
			is, there := find(got, said.ID)
			if !there || (is != said && !slices.Contains(held, said.ID)) {
				t.Fatalf("%q is neither as the catalogue says nor held: %s", said.ID, show(got))
			}
		}
		if !slices.IsSortedFunc(got, compareIDs) {
			t.Fatalf("not sorted: %s", show(got))
		}
	})
}
