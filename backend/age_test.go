package backend

import (
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/homing"
)

func TestAges(t *testing.T) {
	var a ages
	const apart = 5000 * time.Second // of the two clocks
	at := func(sent, took time.Duration) time.Duration {
		return a.of(homing.Process{Member: "b1", Incarnation: 7}, uint64(sent.Milliseconds()), homing.Instant(sent+took+apart))
	}
	for sent := time.Second; sent < 100*time.Second; sent += time.Second { // in calm, whatever window it is
		if age := at(sent, 2*time.Millisecond); age != 0 {
			t.Fatalf("sent at %v: age %v, want 0", sent, age)
		}
	}
	if age := at(100*time.Second, 9*time.Second+2*time.Millisecond); age != 9*time.Second {
		t.Errorf("late by 9s: age %v", age)
	}
	// After a long cut the first that comes is an old one, and begins a window.
	if age := at(101*time.Second, 60*time.Second+2*time.Millisecond); age != 60*time.Second {
		t.Errorf("late by a minute: age %v", age)
	}
	if age := at(161*time.Second, 2*time.Millisecond); age != 0 {
		t.Errorf("after the cut: age %v", age)
	}
	// A clock that runs apart by 100 ppm, all day long, makes nothing old.
	for sent := 200 * time.Second; sent < 24*time.Hour; sent += 10 * time.Second {
		age := a.of(homing.Process{Member: "b3"}, uint64(sent.Milliseconds()), homing.Instant(sent+sent/10_000))
		if age > 20*time.Millisecond {
			t.Fatalf("sent at %v: age %v from the clocks' drift", sent, age)
		}
	}
	if age := a.of(homing.Process{Member: "b1", Incarnation: 8}, 1000, 5); age != 0 {
		t.Errorf("the first of another incarnation: age %v", age)
	}
	if age := a.of(homing.Process{Member: "b1", Incarnation: 7}, 1, 5); age != 0 {
		t.Errorf("of one that has ended: age %v", age)
	}
	if age := a.of(homing.Process{Member: "b2"}, 0, 5); age != 0 {
		t.Errorf("of a release that does not say: age %v", age)
	}
}
