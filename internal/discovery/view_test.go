package discovery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// scripted is a source that reports when the test says so, on the goroutine that says so.
type scripted struct {
	update func([]Member)
	ready  chan struct{}
	end    error
}

func (s *scripted) Watch(ctx context.Context, _ string, update func([]Member)) error {
	s.update = update
	close(s.ready)
	if s.end != nil {
		return s.end
	}
	<-ctx.Done()
	return ctx.Err()
}

// newScripted returns a running view and the function that makes its source report.
func newScripted(t *testing.T) (*View, func(...Member)) {
	t.Helper()
	src := &scripted{ready: make(chan struct{})}
	v := NewView("chat", src, testLog(t))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run ended with %v", err)
		}
	})
	<-src.ready
	return v, func(members ...Member) { src.update(members) }
}

func member(id string) Member { return Member{ID: id, Addr: id + ":1", Weight: 1} }

func isReady(v *View) bool {
	select {
	case <-v.Ready():
		return true
	default:
		return false
	}
}

func TestViewBeforeTheFirstReport(t *testing.T) {
	v, report := newScripted(t)
	s := v.Snapshot()
	if s == nil || s.Service != "chat" || len(s.Members) != 0 || s.Ring.Len() != 0 || s.Ring.Owner("u") != "" {
		t.Fatalf("not the empty snapshot: %+v", s)
	}
	if isReady(v) {
		t.Fatal("ready before a report")
	}
	report()
	if !isReady(v) || v.Snapshot() != s || v.RingChanges() != 0 {
		t.Fatalf("after an empty report: ready %v, %d ring changes", isReady(v), v.RingChanges())
	}
}

func TestViewKeepsTheRing(t *testing.T) {
	v, report := newScripted(t)
	a, b, c := member("a"), member("b"), member("c")
	c.State = Joining
	report(c, a, b)
	first := v.Snapshot()
	if first.Ring.Len() != 2 || v.RingChanges() != 1 {
		t.Fatalf("%d in the ring, %d changes", first.Ring.Len(), v.RingChanges())
	}
	for _, m := range []Member{a, b, c} {
		if got, ok := first.Member(m.ID); !ok || got != m {
			t.Errorf("Member(%q) = %v, %v", m.ID, got, ok)
		}
	}
	if _, ok := first.Member("bb"); ok {
		t.Error("a member that nobody reported")
	}

	report(b, a, c)
	if v.Snapshot() != first {
		t.Error("the same members in another order make a new snapshot")
	}
	a.Incarnation, b.Health, c.State = 7, Warning, Draining
	report(a, b, c)
	second := v.Snapshot()
	if second == first || second.Ring != first.Ring || v.RingChanges() != 1 {
		t.Error("what the ring does not hold changed, and the ring with it")
	}
	if old, _ := first.Member("a"); old.Incarnation != 0 {
		t.Error("an old snapshot changed")
	}
	a.Weight = 2
	report(a, b, c)
	if v.Snapshot().Ring.Digest() == first.Ring.Digest() || v.RingChanges() != 2 {
		t.Error("a weight changed and the ring did not")
	}
}

func TestViewRefusesWhatMakesNoRing(t *testing.T) {
	v, report := newScripted(t)
	report(member("a"))
	before := v.Snapshot()
	heavy := member("b")
	heavy.Weight = MaxWeight + 1
	report(member("a"), heavy)
	report(member("a"), member("a"))
	if v.Snapshot() != before {
		t.Fatal("a report that makes no ring replaced one that did")
	}
}

func TestViewSubscribe(t *testing.T) {
	v, report := newScripted(t)
	var log []string
	note := func(who string) func(old, new *Snapshot) {
		return func(old, new *Snapshot) {
			if v.Snapshot() != new {
				t.Error("told of a snapshot that is not in force")
			}
			log = append(log, fmt.Sprintf("%s %d->%d", who, len(old.Members), len(new.Members)))
		}
	}
	cancel := v.Subscribe(note("x"))
	defer v.Subscribe(note("y"))()
	report()                         // no change
	report(member("a"))              // 0->1
	report(member("a"))              // no change
	report(member("a"), member("b")) // 1->2
	cancel()
	cancel()
	report() // 2->0
	var cancelSelf func()
	cancelSelf = v.Subscribe(func(*Snapshot, *Snapshot) { log = append(log, "once"); cancelSelf() })
	report(member("a")) // 0->1
	report()            // 1->0
	want := []string{"x 0->1", "y 0->1", "x 1->2", "y 1->2", "y 2->0", "y 0->1", "once", "y 1->0"}
	if !slices.Equal(log, want) {
		t.Fatalf("\n got %q\nwant %q", log, want)
	}
}

func TestViewPassesTheSourcesErrorOn(t *testing.T) {
	want := errors.New("no such place")
	v := NewView("chat", &scripted{ready: make(chan struct{}), end: want}, nil)
	if err := v.Run(t.Context()); !errors.Is(err, want) {
		t.Fatal(err)
	}
}

// TestViewLaw: whatever is reported in whichever order, the snapshot is a function of the last report alone, and its ring changes
// exactly when the ring's members do.
func TestViewLaw(t *testing.T) {
	genMember := rapid.Custom(func(t *rapid.T) Member {
		m := member(rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "id"))
		m.State = rapid.SampledFrom([]State{Serving, Serving, Joining, Draining}).Draw(t, "state")
		m.Health = rapid.SampledFrom([]Health{Passing, Passing, Warning, Critical}).Draw(t, "health")
		m.Weight = rapid.IntRange(0, 3).Draw(t, "weight")
		return m
	})
	genReport := rapid.SliceOfDistinct(genMember, func(m Member) string { return m.ID })
	rapid.Check(t, func(t *rapid.T) {
		v := NewView("chat", nil, nil)
		for range 4 {
			report := genReport.Draw(t, "report")
			old := v.Snapshot()
			v.update(slices.Clone(report))
			fresh := NewView("chat", nil, nil)
			fresh.update(slices.Clone(report))
			got, want := v.Snapshot(), fresh.Snapshot()
			if !slices.Equal(got.Members, want.Members) || got.Ring.Digest() != want.Ring.Digest() {
				t.Fatalf("%v", mismatch(got.Members, want.Members))
			}
			same := slices.Equal(ringMembers(old.Members), ringMembers(got.Members))
			if same != (old.Ring == got.Ring) {
				t.Fatalf("ring members the same: %v; ring the same: %v", same, old.Ring == got.Ring)
			}
		}
	})
}

func TestSnapshotCostsNothing(t *testing.T) {
	v := NewView("chat", nil, nil)
	v.update([]Member{member("a"), member("b")})
	if n := testing.AllocsPerRun(100, func() { v.Snapshot().Member("b") }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}
