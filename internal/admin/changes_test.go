package admin

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/testkit"
)

// What a summary says agrees with what the two rings themselves say.
func TestSummary(t *testing.T) {
	three := snapshot(t, b(1), b(2), b(3))
	heavier := func(m *discovery.Member) { m.Weight = 2 }
	held := map[string]int{"b1": 300, "b2": 300, "b3": 300}
	for name, test := range map[string]struct {
		from, to *discovery.Snapshot
		steps    []Step
	}{
		"one dies":          {three, snapshot(t, b(1), b(2, critical), b(3)), []Step{{"b2", "left", "critical"}}},
		"one drains":        {three, snapshot(t, b(1), b(2, draining), b(3)), []Step{{"b2", "left", "draining"}}},
		"one goes":          {three, snapshot(t, b(1), b(3)), []Step{{"b2", "left", "gone from the registry"}}},
		"one comes":         {three, snapshot(t, b(1), b(2), b(3), b(4)), []Step{{"b4", "joined", ""}}},
		"one gets heavier":  {three, snapshot(t, b(1), b(2, heavier), b(3)), []Step{{"b2", "weight", "1 → 2"}}},
		"one for another":   {three, snapshot(t, b(1), b(2), b(5)), []Step{{"b3", "left", "gone from the registry"}, {"b5", "joined", ""}}},
		"all go":            {three, snapshot(t), []Step{{"b1", "left", "gone from the registry"}, {"b2", "left", "gone from the registry"}, {"b3", "left", "gone from the registry"}}},
		"there was nothing": {snapshot(t), three, []Step{{"b1", "joined", ""}, {"b2", "joined", ""}, {"b3", "joined", ""}}},
	} {
		t.Run(name, func(t *testing.T) {
			c := summary(test.from, test.to, held)
			if fmt.Sprint(c.Steps) != fmt.Sprint(test.steps) {
				t.Errorf("steps %v, want %v", c.Steps, test.steps)
			}
			if c.Members != test.to.Ring.Len() || c.Digest != test.to.Ring.Digest() {
				t.Errorf("%d members, digest %s; want %d, %s", c.Members, c.Digest, test.to.Ring.Len(), test.to.Ring.Digest())
			}
			change := make(map[string]float64) // of shares
			var moved float64
			for _, m := range c.Moves {
				if m.From == m.To || m.Share <= 0 {
					t.Errorf("transfer %+v", m)
				}
				change[m.From] -= m.Share
				change[m.To] += m.Share
				moved += m.Share
				if m.From != "" {
					if want := int(300*m.Share/test.from.Ring.Share(m.From) + 0.5); m.Sessions != want {
						t.Errorf("transfer %+v; want about %d sessions", m, want)
					}
				}
			}
			if math.Abs(moved-c.Moved) > 1e-9 {
				t.Errorf("%v moved, and the transfers add up to %v", c.Moved, moved)
			}
			for id := range change {
				if want := test.to.Ring.Share(id) - test.from.Ring.Share(id); id != "" && math.Abs(change[id]-want) > 1e-9 {
					t.Errorf("by the transfers %s has %+v of share more; by the rings %v", id, change[id], want)
				}
			}
		})
	}
}

// A burst of changes becomes two lines: one for the first, which is told at once, and one for all that follow within a second.
func TestChangesAreToldTogether(t *testing.T) {
	registry := discovery.NewMemory()
	registry.Put("chat", b(1))
	view := discovery.NewView("chat", registry, nil)
	changes := NewChanges(view, func(string) int { return 7 })
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- view.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	testkit.Eventually(t, 5*time.Second, func() bool { return len(changes.After(0, 9)) == 1 }, "the first ring to be told")
	for n := 2; n <= 6; n++ {
		registry.Put("chat", b(n))
		testkit.Eventually(t, 5*time.Second, func() bool { return view.Snapshot().Ring.Len() == n }, "the ring to grow")
	}
	testkit.Eventually(t, 5*time.Second, func() bool {
		list := changes.After(0, 9)
		return len(list) > 1 && list[len(list)-1].What.Members == 6
	}, "the last ring to be told")
	list := changes.After(0, 9)
	rings := 0
	for _, e := range list {
		rings += e.What.Rings
	}
	if len(list) > 3 || rings != 6 {
		t.Errorf("%d rings in %d lines; want all 6 in 2, or 3 on a slow machine", rings, len(list))
	}
	if last := list[len(list)-1].What; last.Moves[0].Sessions < 0 {
		t.Errorf("how many sessions moved is not told: %+v", last.Moves)
	}
}

// However many members there are, a change is told in a bounded number of lines.
func TestLargeChangeIsCut(t *testing.T) {
	var before, after []discovery.Member
	for n := range 60 {
		before = append(before, b(n))
		if n >= 30 {
			after = append(after, b(n))
		}
	}
	c := summary(snapshot(t, before...), snapshot(t, after...), nil)
	if len(c.Moves) != transfersShown || c.Others != 30*30-transfersShown || len(c.Steps) != stepsShown {
		t.Errorf("%d transfers, %d others, %d steps", len(c.Moves), c.Others, len(c.Steps))
	}
	total := c.OthersIs
	for _, m := range c.Moves {
		total += m.Share
		if m.Sessions != -1 {
			t.Errorf("%+v: who held how many is not known", m)
		}
	}
	if math.Abs(total-c.Moved) > 1e-9 {
		t.Errorf("%v moved; the transfers and the others add up to %v", c.Moved, total)
	}
}
