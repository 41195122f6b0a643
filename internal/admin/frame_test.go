package admin

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/discovery"
)

func picture(t *testing.T, members ...discovery.Member) *Picture {
	t.Helper()
	s := snapshot(t, members...)
	return &Picture{
		Process: Process{Role: "edge", Name: "e1"}, Snapshot: s, Figures: make(map[string]Figures),
		Changes: NewChanges(discovery.NewView("chat", discovery.NewMemory(), nil), nil), Closures: NewJournal[Closure](8),
	}
}

func size(t *testing.T, f *frame) int {
	t.Helper()
	text, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return len(text)
}

// After the first frame only what has changed is told.
func TestTellerTellsChanges(t *testing.T) {
	now := time.Now()
	p := picture(t, b(1), b(2))
	p.Figures["b1"] = told(5)
	p.Closures.Add(Closure{Member: "b1", Reason: "kick", User: "alice"})
	services := []serviceRow{{"chat", Calm}}
	teller := newTeller()
	first := teller.tell(p, services, now)
	if !first.First || first.Service != "chat" || len(first.Members) != 2 || len(first.Live) != 2 || len(first.Closures) != 1 || first.Verdict == nil ||
		first.Ring == nil || first.Ring.Size != 2 || first.Process == nil || first.Totals == nil || len(first.Services) != 1 {
		t.Errorf("first frame %+v", first)
	}
	if n := size(t, teller.tell(p, services, now.Add(time.Second))); n > 40 {
		t.Errorf("a frame of no news takes %d bytes", n)
	}

	p.Figures["b1"] = told(6)
	f := teller.tell(p, services, now.Add(2*time.Second))
	if len(f.Members) != 0 || len(f.Live) != 1 || f.Live["b1"][2] != 6 || f.Verdict != nil || f.Ring != nil || len(f.Closures) != 0 {
		t.Errorf("after one more session: %+v", f)
	}

	next := picture(t, b(1, draining), b(3))
	next.Figures, next.Closures, next.Changes = p.Figures, p.Closures, p.Changes
	next.Closures.Add(Closure{Member: "b1", Reason: "restart"})
	next.Figures["b1"] = Figures{Told: true, Failures: 3, LastFailure: Failure{now, "refused"}}
	f = teller.tell(next, services, now.Add(3*time.Second))
	if len(f.Gone) != 1 || f.Gone[0] != "b2" || f.Members["b1"].Out != "draining" || f.Members["b3"].Addr == "" || f.Ring == nil ||
		f.Verdict == nil || len(f.Closures) != 1 || f.Closures[0].Reason != "restart" || f.Failures["b1"].Count != 3 {
		t.Errorf("after a change of members: %+v", f)
	}
	if f := teller.tell(next, services, now.Add(4*time.Second)); len(f.Gone)+len(f.Failures)+len(f.Members) != 0 {
		t.Errorf("told twice: %+v", f)
	}
}

// The time since which a member runs is worked out anew with each answer and trembles; that alone is no news.
func TestTellerLetsUptimeTremble(t *testing.T) {
	now := time.Now()
	p := picture(t, b(1))
	teller := newTeller()
	for i := range 20 {
		p.Figures["b1"] = Figures{Told: true, Up: time.Hour + time.Duration(i)*time.Second + time.Duration(i%3)*700*time.Millisecond}
		if f := teller.tell(p, nil, now.Add(time.Duration(i)*time.Second)); i > 0 && len(f.Members) > 0 {
			t.Fatalf("frame %d tells %+v", i, f.Members)
		}
	}
	p.Figures["b1"] = Figures{Told: true, Up: time.Second}
	if f := teller.tell(p, nil, now.Add(20*time.Second)); len(f.Members) != 1 {
		t.Error("a restart is not told")
	}
}
