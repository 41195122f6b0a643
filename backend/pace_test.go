package backend

import (
	"slices"
	"testing"
	"time"
)

func TestPaceRate(t *testing.T) {
	for _, test := range []struct {
		name             string
		pace             Pace
		moving, sessions int
		want             float64
	}{
		{"spread is slower", Pace{Spread: 10 * time.Second, MaxPerSecond: 0.5}, 100, 1000, 10},
		{"share is slower", Pace{Spread: 10 * time.Second, MaxPerSecond: 0.05}, 1000, 1000, 50},
		{"they agree", Pace{Spread: 10 * time.Second, MaxPerSecond: 0.1}, 1000, 1000, 100},
		{"at least one", Pace{Spread: 10 * time.Second, MaxPerSecond: 0.05}, 3, 10, 1},
		{"nobody", Pace{Spread: 10 * time.Second, MaxPerSecond: 0.05}, 0, 0, 1},
		{"all at once", Pace{Spread: time.Nanosecond, MaxPerSecond: 1}, 500, 500, 500},
	} {
		if got := test.pace.rate(test.moving, test.sessions); got != test.want {
			t.Errorf("%s: %v a second, want %v", test.name, got, test.want)
		}
	}
}

func TestMoveRecord(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	at := start.Add
	var r moveRecord
	if r.tooSoon(at(-time.Hour), start) {
		t.Error("never moved, and left alone")
	}
	r = r.next(at(-time.Hour), start)
	if r.times != 1 {
		t.Errorf("moved once: %+v", r)
	}
	// The other devices, open since before: they go with the first, and do not count.
	if r.tooSoon(at(-time.Minute), at(time.Second)) {
		t.Error("the second device is left behind")
	}
	if again := r.next(at(-time.Minute), at(time.Second)); again != r {
		t.Errorf("the second device counts as another time: %+v", again)
	}
	// It came back: 10 s, then 20, 40, ... up to ten minutes.
	now := start
	for _, seconds := range []int{10, 20, 40, 80, 160, 320, 600, 600, 600} {
		rest := time.Duration(seconds) * time.Second
		since := now.Add(time.Second)
		if !r.tooSoon(since, now.Add(rest-1)) || r.tooSoon(since, now.Add(rest)) {
			t.Errorf("moved %d times: is not left alone for %v", r.times, rest)
		}
		now = now.Add(rest)
		r = r.next(since, now)
	}
	if r.times != 10 {
		t.Errorf("%d times, want 10", r.times)
	}
	// After a long rest it begins anew.
	if r = r.next(now.Add(time.Second), now.Add(time.Hour)); r.times != 1 {
		t.Errorf("after an hour: %+v", r)
	}
}

// Clients that connect together are pinged apart, and none sooner or later than it says.
func TestPingJitter(t *testing.T) {
	var all []time.Duration
	for range 1000 {
		all = append(all, pingAfter(30*time.Second))
	}
	first, last := slices.Min(all), slices.Max(all)
	if first < 24*time.Second || last > 36*time.Second || last-first < 10*time.Second {
		t.Errorf("%v to %v; want them over 24 to 36 s", first, last)
	}
}

func TestBucket(t *testing.T) {
	for _, test := range []struct {
		rate  float64
		burst int // at once
		next  time.Duration
	}{{1, 10, time.Second}, {0.01, 1, 100 * time.Second}, {100, 1000, 10 * time.Millisecond}, {0.5, 5, 2 * time.Second}} {
		var b bucket
		at := 7 * time.Second
		taken := 0
		for taken < 10000 && b.take(at, test.rate) {
			taken++
		}
		if taken != test.burst {
			t.Errorf("%v a second: %d at once, want %d", test.rate, taken, test.burst)
		}
		if b.take(at+test.next*9/10, test.rate) || !b.take(at+test.next, test.rate) || b.take(at+test.next, test.rate) {
			t.Errorf("%v a second: not one more after %v", test.rate, test.next)
		}
		again := 0 // refusals cost nothing: after a rest all is as before
		for again < 10000 && b.take(at+time.Hour, test.rate) {
			again++
		}
		if again != test.burst {
			t.Errorf("%v a second: %d after a rest, want %d", test.rate, again, test.burst)
		}
	}
}
