package backend

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/homing"
	"github.com/selvedge/selvedge/internal/peerv1"
)

// What comes after its deadline is not looked at.
func TestOutdatedQuestionIsDropped(t *testing.T) {
	b := newIdle(t, nil)
	now := uint64(time.Duration(bootClock()).Milliseconds())
	ask := func(sentMs uint64) (replied bool) {
		b.home.serve(context.Background(), &peerv1.Request{
			Caller: &peerv1.Caller{Process: &peerv1.Process{Member: "b2", Incarnation: 1}, Callee: &peerv1.Process{Member: "b1"}, SentMs: sentMs},
			Body:   &peerv1.Request_Deliver{Deliver: &peerv1.Deliver{User: "alice", Message: &peerv1.Message{Id: "1"}, RemainingMs: 5000}},
		}, func(*peerv1.Reply) { replied = true }) // at once: this member has not joined
		return replied
	}
	if !ask(now) || !ask(now-4000) {
		t.Error("what is in time gets no reply")
	}
	if ask(now - 6000) {
		t.Error("what is late gets a reply")
	}
}

func TestAgesAreBounded(t *testing.T) {
	var a ages
	for i := range 10 * mostWays {
		a.of(homing.Process{Member: fmt.Sprint("b", i)}, 1, homing.Instant(i))
	}
	if len(a.way) > mostWays {
		t.Errorf("%d members are remembered", len(a.way))
	}
}

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
