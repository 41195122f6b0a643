package discovery

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"pgregory.net/rapid"
)

// dampedWatch drives a catalogue of members a to e, of which the test changes a.
type dampedWatch struct {
	t    *testing.T
	w    *catalogue
	last func() ([]Member, int)
	now  time.Time
	n    uint64
}

func newDampedWatch(t *testing.T) *dampedWatch {
	d := &dampedWatch{t: t, now: time.Unix(1000, 0)}
	d.w, d.last = newCatalogue(t)
	d.w.panicThreshold = DefaultPanicThreshold
	return d
}

// say reports a as changed, or missing where change is nil, after a while.
func (d *dampedWatch) say(after time.Duration, change func(*api.ServiceEntry)) {
	d.now = d.now.Add(after)
	d.n++
	entries := []*api.ServiceEntry{entry("b"), entry("c"), entry("d"), entry("e")}
	if change != nil {
		entries = append(entries, entry("a", change))
	}
	d.w.take(d.now, entries, answered(d.n))
}

// in tells whether a is in the ring.
func (d *dampedWatch) in() bool {
	members, _ := d.last()
	return slices.Contains(ids(members), "a")
}

func (d *dampedWatch) want(in bool, when string) {
	d.t.Helper()
	if d.in() != in {
		members, _ := d.last()
		d.t.Fatalf("%s: in the ring: %v, want %v: %s", when, !in, in, show(members))
	}
}

var (
	well = func(*api.ServiceEntry) {}
	sick = status("critical")
)

// comesBackAfter checks that a waits for want from now on, and no longer.
func (d *dampedWatch) comesBackAfter(want time.Duration, when string) {
	d.t.Helper()
	if want > 0 {
		d.want(false, when)
		if wait := d.w.wait(d.now); wait != want {
			d.t.Fatalf("%s: the next query waits %v, a has to wait %v", when, wait, want)
		}
		d.say(want-1, well)
		d.want(false, when+", at the end")
		d.say(1, well)
	}
	d.want(true, when+", after that")
}

func TestFlappingIsDamped(t *testing.T) {
	d := newDampedWatch(t)
	d.say(0, well)
	d.want(true, "at first")
	for i, seconds := range []int{0, 0, 10, 20, 40, 60, 60} {
		d.say(time.Second, sick)
		d.want(false, "out at once")
		d.say(time.Second, well)
		d.comesBackAfter(time.Duration(seconds)*time.Second, fmt.Sprint("return ", i+1))
	}
	d.say(dampWindow, sick) // it stayed for long enough: all is forgotten
	d.say(time.Second, well)
	d.comesBackAfter(0, "after a calm minute")
	for range dampAfter - 1 {
		d.say(time.Second, sick)
		d.say(time.Second, well)
	}
	d.comesBackAfter(dampFirst, "a new series")
	d.say(time.Second, sick)
	d.say(dampWindow, well)
	d.comesBackAfter(0, "after a minute away")
	if flaps := d.w.counters.flaps.Load(); flaps != 11 {
		t.Errorf("%d flaps counted, want 11", flaps)
	}
}

// What does not flap is not damped, however often it is repeated.
func TestNotDamped(t *testing.T) {
	incarnation := 5
	restarted := func(e *api.ServiceEntry) {
		e.Service.Meta[metaIncarnation] = fmt.Sprint(incarnation)
	}
	for name, step := range map[string]func(d *dampedWatch){
		"an operator drains and takes back": func(d *dampedWatch) { d.say(time.Second, meta(metaState, "draining")); d.say(time.Second, well) },
		"an operator's weight 0": func(d *dampedWatch) {
			d.say(time.Second, func(e *api.ServiceEntry) { status("warning")(e); weights(1, 0)(e) })
			d.say(time.Second, well)
		},
		"maintenance": func(d *dampedWatch) {
			d.say(time.Second, func(e *api.ServiceEntry) { e.Checks[0].CheckID = api.NodeMaint })
			d.say(time.Second, well)
		},
		"warnings":     func(d *dampedWatch) { d.say(time.Second, status("warning")); d.say(time.Second, well) },
		"once a while": func(d *dampedWatch) { d.say(dampWindow/2, sick); d.say(time.Second, well) },
		"long away":    func(d *dampedWatch) { d.say(time.Second, nil); d.say(dampWindow, well) },
		"a rolling restart now and then": func(d *dampedWatch) {
			incarnation++
			joining := func(e *api.ServiceEntry) { restarted(e); e.Service.Meta[metaState] = "joining" }
			d.say(dampWindow/2, meta(metaState, "draining"))
			d.say(time.Second, nil)
			d.say(time.Second, joining)
			d.say(time.Second, restarted)
		},
	} {
		t.Run(name, func(t *testing.T) {
			incarnation = 5
			d := newDampedWatch(t)
			d.say(0, well)
			for range 10 {
				step(d)
				d.want(true, "again")
			}
		})
	}
}

// Restarts count as returns, seen or not: a process that crashes as soon as it serves must not take users each time.
func TestCrashLoopIsDamped(t *testing.T) {
	for _, seen := range []bool{true, false} {
		d := newDampedWatch(t)
		for i := range 5 {
			if seen && i > 0 {
				d.say(time.Second, nil)
			}
			d.say(time.Second, meta(metaIncarnation, fmt.Sprint(5+i)))
			d.want(i < 3, fmt.Sprintf("start %d, seen to go: %v", i+1, seen))
		}
	}
}

// A newcomer that takes its time to become healthy has not come back from anywhere.
func TestSlowNewcomerIsNotDamped(t *testing.T) {
	d := newDampedWatch(t)
	d.say(0, nil)
	for range 2 * dampAfter {
		d.say(time.Second, sick)
		d.say(time.Second, nil)
	}
	d.say(time.Second, well)
	d.comesBackAfter(0, "its first time")
	if flaps := d.w.counters.flaps.Load(); flaps != 0 {
		t.Errorf("%d flaps counted", flaps)
	}
}

// Damping takes no more away than the panic threshold allows, and never the last.
func TestDampingLeavesARing(t *testing.T) {
	for _, threshold := range []float64{0, 0.5, 1} {
		w, last := newCatalogue(t)
		w.panicThreshold = threshold
		now := time.Unix(1000, 0)
		for i := range 5 {
			for j, sickness := range []string{"passing", "critical"} {
				now = now.Add(time.Second)
				a, b := entry("a", status(sickness)), entry("b", status(sickness))
				w.take(now, []*api.ServiceEntry{a, b, entry("c")}, answered(uint64(2*i+j+1)))
			}
		}
		now = now.Add(time.Second)
		w.take(now, []*api.ServiceEntry{entry("a"), entry("b"), entry("c")}, answered(100))
		got, _ := last()
		want := 3 // one of three is less than a half
		if threshold == 0 {
			want = 1
		}
		if in := len(ids(got)); in != want {
			t.Errorf("threshold %v: %d in the ring, want %d: %s", threshold, in, want, show(got))
		}
	}
	w, last := newCatalogue(t) // alone
	now := time.Unix(1000, 0)
	for i := range uint64(10) {
		now = now.Add(time.Second)
		w.take(now, []*api.ServiceEntry{entry("a", status([]string{"passing", "critical"}[i%2]))}, answered(i+1))
		if got, _ := last(); (len(ids(got)) == 1) != (i%2 == 0) {
			t.Fatalf("alone: %s", show(got))
		}
	}
}

// A member waits by the clock, even where Consul goes away meanwhile.
func TestWaitingEndsWithoutConsul(t *testing.T) {
	d := newDampedWatch(t)
	for range dampAfter {
		d.say(time.Second, well)
		d.say(time.Second, sick)
	}
	d.say(time.Second, well)
	d.want(false, "damped")
	d.w.lost(d.now, fmt.Errorf("away"))
	d.want(false, "away")
	d.w.lost(d.now.Add(dampFirst), fmt.Errorf("still away"))
	d.want(true, "its time has come")
}

// TestJudgementLaw: whatever is reported, the ring is a part of those that want users; it holds every one that is healthy and does not
// wait; and it is not empty where one is healthy.
func TestJudgementLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var got []Member
		w := &catalogue{judge: judge{log: testNop, counters: new(counters), update: func(m []Member) { got = m },
			panicThreshold: rapid.SampledFrom([]float64{0, 0.3, 0.5, 1}).Draw(t, "threshold")}}
		now := time.Unix(1000, 0)
		for i := range rapid.IntRange(1, 30).Draw(t, "reports") {
			now = now.Add(time.Duration(rapid.IntRange(0, 30).Draw(t, "seconds")) * time.Second)
			var entries []*api.ServiceEntry
			for _, id := range []string{"a", "b", "c", "d"} {
				if rapid.IntRange(0, 4).Draw(t, "there") == 0 {
					continue
				}
				entries = append(entries, entry(id,
					status(rapid.SampledFrom([]string{"passing", "warning", "critical", "critical"}).Draw(t, "status")),
					meta(metaState, rapid.SampledFrom([]string{"serving", "serving", "draining", "joining"}).Draw(t, "state")),
					meta(metaIncarnation, rapid.SampledFrom([]string{"1", "2"}).Draw(t, "incarnation"))))
			}
			w.take(now, entries, answered(uint64(i+1)))
			ring, healthy := 0, 0
			for _, m := range got {
				well := m.wantsUsers() && m.Health != Critical
				switch {
				case m.InRing() && !m.wantsUsers():
					t.Fatalf("in the ring against its word: %s", show(got))
				case m.InRing() && !well && m.Override != Kept, well && !m.InRing() && m.Override != Damped:
					t.Fatalf("in or out without a reason: %s", show(got))
				}
				if well {
					healthy++
				}
				if m.InRing() {
					ring++
				}
			}
			if healthy > 0 && ring == 0 {
				t.Fatalf("nobody in the ring: %s", show(got))
			}
			if wait := w.wait(now); wait <= 0 || wait > consulWait {
				t.Fatalf("the next query waits %v", wait)
			}
		}
	})
}
