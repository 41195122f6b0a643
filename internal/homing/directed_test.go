package homing_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/homing"
)

func is(what string, isReply bool) func(message) bool {
	return func(m message) bool { return m.what == what && m.isReply == isReply }
}

// A session that is drained away arrives at its home while others still believe in the old ring.
func TestDrainBeforeAnnouncing(t *testing.T) {
	s := newScript(t, 3)
	u := s.userOf("b0", "b1", "b2")
	b0, b1, b2 := s.m("b0"), s.m("b1"), s.m("b2")
	old := s.open(b0, u)
	// b0 leaves its own ring, and nobody else has heard of it.
	b0.work(b0.node.Drain)
	if b0.node.Ring().OwnerOfHash(uint64(u.hash)) == "b0" {
		t.Error("it is still on its own ring")
	}
	old.close(moved)
	x := s.open(b1, u) // where b0 is not the home any more for those who see it draining; b1 must still ask it
	s.delivered(s.ask(b0, s.message(u, "at the old home")), x)
	s.delivered(s.ask(b2, s.message(u, "elsewhere")), x)
	s.delivered(s.ask(b1, s.message(u, "at the new home")), x)
}

func TestRestartWithTheSameIDBeforeTheTTL(t *testing.T) {
	s := newScript(t, 3)
	u := s.userOf("b0", "b1", "b2")
	s.open(s.m("b0"), u)
	s.m("b0").exit()
	again := s.startMember("b0", "")
	s.until(time.Second, "it serves", again.node.IsServing) // though the registry and the others have not noticed
	s.delivered(s.ask(s.m("b1"), s.message(u, "before")))
	x := s.open(s.m("b0"), u)
	s.delivered(s.ask(s.m("b1"), s.message(u, "after")), x)
	for _, p := range s.m("b1").node.Known() {
		if p.Member == "b0" && p.Incarnation != again.self.Incarnation {
			t.Error("b1 still knows the first incarnation")
		}
	}
}

// The edge takes a user to his home's successor, since it cannot reach the home; everybody else can.
func TestEdgeCannotReachTheHomeButTheSenderCan(t *testing.T) {
	s := newScript(t, 3)
	u := s.userOf("b0", "b1", "b2")
	x := s.open(s.m("b1"), u)
	if r := s.ask(s.m("b0"), s.message(u, "home")); true {
		s.delivered(r, x)
		if r.asks != 1 {
			t.Errorf("%d asked; want the holder alone", r.asks)
		}
	}
	s.delivered(s.ask(s.m("b2"), s.message(u, "elsewhere")), x)
}

func TestHolderThatWasNeverTheHomeWhenTheRangeMoves(t *testing.T) {
	s := newScript(t, 3)
	u := s.userOf("b0", "b1", "b2")
	x := s.open(s.m("b2"), u) // announced to b0
	s.see(s.m("b1"), "b1", "b2")
	s.delivered(s.ask(s.m("b1"), s.message(u, "the new home has heard of nothing")), x)
	s.see(s.m("b0"), "b1", "b2")
	s.delivered(s.ask(s.m("b0"), s.message(u, "the old home")), x)
	s.see(s.m("b2"), "b1", "b2")
	s.delivered(s.ask(s.m("b1"), s.message(u, "all agree")), x)
	s.run(3 * time.Second)
	s.delivered(s.ask(s.m("b1"), s.message(u, "calm")), x)
}

// b2 saw the ring without b1 for a moment, and promised b0 something under it; b1 never did.
func TestViewsThatWentDifferentWays(t *testing.T) {
	s := newScript(t, 3)
	u := s.userOf("b1", "b0", "b2") // b1's; b0's without b1
	b0, b1, b2 := s.m("b0"), s.m("b1"), s.m("b2")
	s.see(b0, "b0", "b2")
	s.see(b2, "b0", "b2")
	s.run(2 * time.Second) // b2 has promised b0
	s.see(b2, "b0", "b1", "b2")
	x := s.open(b2, u) // b1 is told, and b0 too, since it holds a promise of the ring before
	s.delivered(s.ask(b0, s.message(u, "by the old view")), x)
	s.delivered(s.ask(b1, s.message(u, "by the new view")), x)
}

// Of one user's sessions at a holder one closes and one opens; what the home hears of it comes out of order.
func TestCloseAndOpenOutOfOrder(t *testing.T) {
	s := newScript(t, 3)
	u := s.userOf("b0", "b1", "b2")
	b0, b1 := s.m("b0"), s.m("b1")
	first := s.open(b1, u)
	s.run(2 * time.Second)
	first.close(hungUp)
	s.late(600*time.Millisecond, func(m message) bool { return m.what == "Poll" && m.isReply && m.from == b1.place && m.to == b0.place })
	s.sees(1200*time.Millisecond, func(m message) bool { return m.what == "Poll" && m.isReply && m.from == b1.place && m.to == b0.place })
	x := s.open(b1, u) // announced while that promise is on its way
	s.run(700 * time.Millisecond)
	s.delivered(s.ask(b0, s.message(u, "m")), x)

	// And the announcement comes after a promise that was made later.
	s.onTime()
	s.late(500*time.Millisecond, func(m message) bool { return m.what == "Announce" && !m.isReply && m.to == b0.place })
	x.close(hungUp)
	result := s.opening(b1, u)
	s.run(200 * time.Millisecond)
	s.delivered(s.ask(b0, s.message(u, "nobody yet")))
	s.until(2*time.Second, "it is over", func() bool { _, over := result(); return over })
	if y, _ := result(); y != nil {
		s.delivered(s.ask(b0, s.message(u, "somebody")), y)
	}
}

// The sessions took it, the answer was lost: the retry must count them, and not reach them again.
func TestReplyLostAndRetried(t *testing.T) {
	s := newScript(t, 3)
	u := s.userOf("b0", "b1", "b2")
	x := s.open(s.m("b0"), u)
	p := s.message(u, "m")
	s.late(lost, is("Forward", true))
	s.late(lost, is("Ask", true))
	s.unsettled(s.ask(s.m("b1"), p))
	if !x.has(p) {
		t.Fatal("the session has not taken it")
	}
	s.onTime()
	s.delivered(s.ask(s.m("b2"), p), x)
	s.delivered(s.ask(s.m("b0"), p), x)
}

func TestTheSameIDWithAnotherText(t *testing.T) {
	s := newScript(t, 2)
	u := s.userOf("b0", "b1")
	x := s.open(s.m("b0"), u)
	p := s.message(u, "m")
	s.delivered(s.ask(s.m("b1"), p), x)
	p.text = 2
	for _, at := range []string{"b0", "b1"} {
		if r := s.ask(s.m(at), p); r.certain || !errors.Is(r.final, homing.ErrReused) {
			t.Errorf("by %s: certain %v, %v; want ErrReused", at, r.certain, r.final)
		}
	}
}

// One device can be reached, the other cannot: an error, and the retry reaches the second alone.
func TestPartialDeliveryToTwoDevices(t *testing.T) {
	s := newScript(t, 3)
	u := s.userOf("b0", "b1", "b2")
	x, y := s.open(s.m("b0"), u), s.open(s.m("b1"), u)
	p := s.message(u, "m")
	s.late(lost, func(m message) bool { return m.what == "Ask" && m.to == s.m("b1").place })
	r := s.ask(s.m("b0"), p)
	s.unsettled(r)
	if !slices.Equal(r.sessions, []string{x.id}) || len(r.silent) != 1 || r.silent[0].Member != "b1" {
		t.Errorf("%v, silent %v; want the one that was reached, and b1", r.sessions, r.silent)
	}
	s.onTime()
	s.delivered(s.ask(s.m("b0"), p), x, y)
}

// Some see everybody on the ring, the sick and the dead too; others see nobody.
func TestPanicRingAtSome(t *testing.T) {
	s := newScript(t, 4)
	u := s.userOf("b0", "b1", "b2", "b3")
	s.see(s.m("b1"), "b1")
	s.see(s.m("b2"))
	s.see(s.m("b3"), "b2", "b3")
	s.run(2 * time.Second)
	x, y, z := s.open(s.m("b1"), u), s.open(s.m("b3"), u), s.open(s.m("b2"), u)
	for _, at := range []string{"b0", "b1", "b2", "b3"} {
		s.delivered(s.ask(s.m(at), s.message(u, "by "+at)), x, y, z)
	}
	for _, at := range []string{"b0", "b1", "b2", "b3"} {
		nobody := s.userOf("b1")
		s.delivered(s.ask(s.m(at), s.message(nobody, "to nobody by "+at)))
	}
}

// A session stands where it does since its edge cannot reach the home. It is moved only once the home has acknowledged it under an equal
// owner; and how often, the caller bounds.
func TestEdgeCutFromTheHomeOnly(t *testing.T) {
	s := newScript(t, 3)
	u := s.userOf("b0", "b1", "b2")
	b0, b1 := s.m("b0"), s.m("b1")
	s.run(5 * time.Second)
	s.open(b1, u)
	if b1.node.MayMove(b1.clock(), u.hash) {
		t.Error("it may be moved before the home has processed a reply that lists it")
	}
	s.until(2500*time.Millisecond, "it may be moved", func() bool { return b1.node.MayMove(b1.clock(), u.hash) })
	s.see(b0, "b1", "b2")
	s.until(1500*time.Millisecond, "the home's other view is known", func() bool { return !b1.node.MayMove(b1.clock(), u.hash) })
	s.see(b0, "b0", "b1", "b2")
	s.until(1500*time.Millisecond, "it may be moved", func() bool { return b1.node.MayMove(b1.clock(), u.hash) })
	s.see(b1, "b0", "b1")
	s.run(2900 * time.Millisecond)
	if b1.node.MayMove(b1.clock(), u.hash) {
		t.Error("it may be moved right after the ring has changed")
	}
	s.late(lost, between(b0, b1))
	s.run(4 * time.Second)
	s.see(b1, "b0", "b1", "b2")
	s.run(12 * time.Second)
	if b1.node.MayMove(b1.clock(), u.hash) {
		t.Error("it may be moved to a home that nobody has heard of for the lease")
	}
}

// The sender asks somebody whom nobody has told of the newcomer where the session is.
func TestMemberNobodyHasToldTheSenderOf(t *testing.T) {
	s := newScript(t, 3)
	b0, b2 := s.m("b0"), s.m("b2")
	s.registry.watchers = nil // the views stay as they are
	b3 := s.startMember(s.newMemberID(), "")
	s.until(2*time.Second, "it serves", b3.node.IsServing)
	u := s.userOf("b0", "b1", "b2")
	x := s.open(b3, u)
	s.delivered(s.ask(b2, s.message(u, "by one who does not own the user")), x)
	s.delivered(s.ask(b0, s.message(u, "by the home")), x)
}

// A push waits in a hung process while the same sender's next one goes another way.
func TestRetryOvertaking(t *testing.T) {
	s := newScript(t, 3)
	u := s.userOf("b0", "b1", "b2")
	b0, b1, b2 := s.m("b0"), s.m("b1"), s.m("b2")
	x := s.open(b0, u)
	first, second := s.message(u, "first"), s.message(u, "second")
	first.sender, second.sender = "s", "s"
	first.sequence, second.sequence = 1, 2
	b1.hang()
	var late *scriptCall
	b1.do(func() { late = s.begin(b1, first) })
	s.delivered(s.ask(b2, second), x)
	b1.wake()
	if r := s.await(late); r.certain || !errors.Is(r.final, errTooLate) {
		t.Errorf("certain %v, %v; want that it is too late", r.certain, r.final)
	}
	if x.has(first) {
		t.Error("the first came after the second")
	}
}

// The sessions are closed, the answer is lost, and the user has come back: a repeat closes those that were listed, not the new one.
func TestKickWhoseReplyIsLost(t *testing.T) {
	s := newScript(t, 2)
	u := s.userOf("b0", "b1")
	b0, b1 := s.m("b0"), s.m("b1")
	old := s.open(b0, u)
	sender := &sender{process: s.newProcess("s", "s"), busy: make(map[*user]bool)}
	listed := s.ask(b1, payload{kind: listing, user: u})
	s.delivered(listed, old)
	s.late(lost, is("kick", true))
	sender.kick(u, listed.sessions)
	s.run(100 * time.Millisecond)
	if old.isOpen() {
		t.Fatal("it is still open")
	}
	back := s.open(b0, u)
	s.onTime()
	sender.kick(u, listed.sessions)
	s.run(100 * time.Millisecond)
	if !back.isOpen() {
		t.Error("the session that came later was closed")
	}
	s.delivered(s.ask(b1, payload{kind: listing, user: u}), back)
}

// One device with two sessions, for a moment: a push reaches both, once each, and both count.
func TestDuplicatesCountPerSession(t *testing.T) {
	s := newScript(t, 2)
	u := s.userOf("b0", "b1")
	old, back := s.open(s.m("b1"), u), s.open(s.m("b0"), u)
	p := s.message(u, "m")
	s.delivered(s.ask(s.m("b1"), p), old, back)
	s.delivered(s.ask(s.m("b0"), p), old, back)
	old.close(hungUp)
	s.delivered(s.ask(s.m("b0"), p), old, back) // it took it, though it is gone
}
