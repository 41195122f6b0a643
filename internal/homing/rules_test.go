package homing_test

import (
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/homing"
)

// Whoever is not in the list it reads may not be seen by others who join at the same time.
func TestJoinsOnlyOnceItIsRegistered(t *testing.T) {
	self := homing.Peer{Process: homing.Process{Member: "a", Incarnation: 1}, Addr: "a"}
	n := homing.New(homing.Config{Self: self})
	n.Start(0)
	n.Catalog(1, 1, nil)
	n.Tick(2)
	if n.IsServing() {
		t.Error("it serves, and the registry has not shown it yet")
	}
	n.Catalog(3, 3, []homing.Registration{{Peer: self}})
	if !n.IsServing() {
		t.Error("it does not serve, though it is registered and alone")
	}
}

// The newcomer takes no session before the one who cannot be reached has acknowledged it, or is dead.
func TestJoinWaitsForAll(t *testing.T) {
	s := newScript(t, 2)
	b1 := s.m("b1")
	b1.hang()
	b2 := s.startMember(s.newMemberID(), "")
	s.run(5 * time.Second)
	if b2.node.IsServing() || len(b2.node.Waiting()) != 1 {
		t.Fatalf("serves %v, waits for %v; want that it waits for b1", b2.node.IsServing(), b2.node.Waiting())
	}
	s.unsettled(s.ask(b2, s.message(s.userOf("b0"), "m")))
	b1.wake()
	s.until(time.Second, "it serves", b2.node.IsServing)
}

// The reply to a poll takes long: what was promised counts from when the poll was sent.
func TestLeaseCountsFromTheQuestion(t *testing.T) {
	s := newScript(t, 3)
	u := s.userOf("b0", "b1", "b2")
	b0, b2 := s.m("b0"), s.m("b2")
	reply := func(m message) bool { return m.what == "Poll" && m.isReply && m.from == b2.place && m.to == b0.place }
	s.late(1900*time.Millisecond, reply)
	s.sees(2*time.Second, reply)
	s.late(lost, func(m message) bool { return between(b0, b2)(m) && !reply(m) })
	s.run(10700 * time.Millisecond)
	s.open(b2, u) // its promise has lapsed
	s.unsettled(s.ask(b0, s.message(u, "m")))
}

// b0's clock is slow and b2's is fast: the promise must not lapse for b2 while b0 still counts on it.
func TestClocksOfUnequalSpeed(t *testing.T) {
	s := newScript(t, 3)
	u := s.userOf("b0", "b1", "b2")
	b0, b2 := s.m("b0"), s.m("b2")
	for p, rate := range map[*member]float64{b0: 0.99, b2: 1.01} {
		p.offset += time.Duration((p.rate - rate) * float64(s.now))
		p.rate = rate
	}
	reply := func(m message) bool { return m.what == "Poll" && m.isReply && m.from == b2.place && m.to == b0.place }
	s.sees(2*time.Second, reply)
	s.run(2 * time.Millisecond)
	s.late(lost, between(b0, b2))
	s.run(9950 * time.Millisecond)
	result := s.opening(b2, u)
	s.run(time.Millisecond)
	s.ask(b0, s.message(u, "m")) // the judge says whether it may be OFFLINE
	if x, _ := result(); x != nil {
		t.Error("it opened, though b0 counts on the promise")
	}
}

// b0 takes b1 for the home, and b1 takes b0.
func TestAnAskNeverForwards(t *testing.T) {
	s := newScript(t, 3)
	u := s.userOf("b0", "b1", "b2")
	s.see(s.m("b0"), "b1", "b2")
	x := s.open(s.m("b2"), u)
	for _, at := range []string{"b0", "b1", "b2"} {
		r := s.ask(s.m(at), s.message(u, "by "+at))
		s.delivered(r, x)
		if r.hops > 2 {
			t.Errorf("by %s: %d hops", at, r.hops)
		}
	}
}

// Nobody keeps a promise to one who has said goodbye, so it must say nothing more.
func TestOneThatHasLeftSaysNothing(t *testing.T) {
	s := newScript(t, 3)
	u := s.userOf("b0", "b1", "b2")
	b0, b1 := s.m("b0"), s.m("b1")
	b0.work(b0.node.Drain)
	b0.state = "draining"
	s.late(50*time.Millisecond, is("Goodbye", false))
	waiting := s.begin(b0, s.message(s.userOf("b1"), "under way"))
	b0.work(b0.node.Leave)
	s.unsettled(s.await(waiting))
	s.run(60 * time.Millisecond)
	s.open(b1, u)
	s.late(lost, is("Forward", false)) // so that it would have to find out for itself
	s.late(lost, is("Poll", false))    // and does not hear that it is held dead
	s.unsettled(s.ask(b0, s.message(u, "after it has left")))
}

func TestOneThatDrainsBeforeItHasJoinedNeverJoins(t *testing.T) {
	s := newScript(t, 2)
	u := s.userOf("b0", "b1")
	s.open(s.m("b0"), u)
	s.m("b0").hang()
	b2 := s.startMember(s.newMemberID(), "")
	s.run(500 * time.Millisecond)
	b2.work(b2.node.Drain)
	s.m("b0").wake()
	s.run(3 * time.Second)
	s.unsettled(s.ask(b2, s.message(u, "m")))
	if b2.node.IsServing() {
		t.Error("it serves")
	}
	b2.work(b2.node.Leave)
	s.run(10 * time.Millisecond)
	for _, p := range s.m("b1").node.Known() {
		if p == b2.self {
			t.Error("b1 has not heard its goodbye")
		}
	}
}

// b0 and two newcomers are on the side of the registry, b1 and b2 on the other: they are most of those who have joined, and go on.
func TestWhoJoinsHasNoVote(t *testing.T) {
	s := newScript(t, 3)
	b0, b1, b2 := s.m("b0"), s.m("b1"), s.m("b2")
	b3, b4 := s.startMember(s.newMemberID(), ""), s.startMember(s.newMemberID(), "")
	for _, near := range []string{b0.place, b3.place, b4.place, registryPlace} {
		s.cutOff(time.Minute, near, b1.place)
		s.cutOff(time.Minute, near, b2.place)
	}
	s.run(50 * time.Second)
	if !b1.node.IsServing() || !b2.node.IsServing() || b3.node.IsServing() || len(b0.node.Known()) != 4 {
		t.Errorf("b1 serves %v, b2 %v, b3 %v, b0 knows %v", b1.node.IsServing(), b2.node.IsServing(), b3.node.IsServing(), b0.node.Known())
	}
	s.run(15 * time.Second)
	if !b3.node.IsServing() || !b4.node.IsServing() {
		t.Error("the newcomers do not serve once the network is whole")
	}
}

// The mirror image: b1 is in touch with two newcomers alone, of whom the others do not know. It must find itself cut off.
func TestWhoJoinsIsNoCompany(t *testing.T) {
	s := newScript(t, 3)
	b0, b1, b2 := s.m("b0"), s.m("b1"), s.m("b2")
	for _, far := range []*member{s.startMember(s.newMemberID(), ""), s.startMember(s.newMemberID(), ""), b1} {
		for _, place := range []string{b0.place, b2.place, registryPlace} {
			if far == b1 || place != registryPlace {
				s.cutOff(time.Minute, far.place, place)
			}
		}
	}
	s.registry.watchers = nil
	s.run(11 * time.Second)
	if b1.node.IsServing() {
		t.Error("b1 goes on")
	}
}

// Nobody has heard of b1 for long, but the registry has: it goes on, and is not dead to the others.
func TestBurialNeedsTheRegistry(t *testing.T) {
	s := newScript(t, 3)
	for _, place := range []string{s.m("b0").place, s.m("b2").place} {
		s.cutOff(time.Minute, s.m("b1").place, place)
	}
	s.run(50 * time.Second)
	if !s.m("b1").node.IsServing() || len(s.m("b0").node.Known()) != 2 {
		t.Errorf("b1 serves %v; b0 knows %v", s.m("b1").node.IsServing(), s.m("b0").node.Known())
	}
}

// The registry and b0 have not heard of b1 for long, but b2 has.
func TestBurialNeedsAMajority(t *testing.T) {
	s := newScript(t, 3)
	for _, place := range []string{s.m("b0").place, registryPlace} {
		s.cutOff(time.Minute, s.m("b1").place, place)
	}
	s.run(50 * time.Second)
	if !s.m("b1").node.IsServing() || len(s.m("b0").node.Known()) != 2 {
		t.Errorf("b1 serves %v; b0 knows %v", s.m("b1").node.IsServing(), s.m("b0").node.Known())
	}
}

// Nobody but a burial gets a process out of the way whose host has vanished.
func TestBurial(t *testing.T) {
	s := newScript(t, 3)
	u := s.userOf("b1", "b0", "b2")
	s.network.gone[s.m("b1").place] = true
	s.m("b1").exit()
	s.run(2 * time.Second)
	s.unsettled(s.ask(s.m("b0"), s.message(u, "its home has vanished")))
	s.until(30*time.Second, "b1 is buried", func() bool { return len(s.m("b0").node.Known()) == 1 && len(s.m("b2").node.Known()) == 1 })
	s.delivered(s.ask(s.m("b0"), s.message(u, "its home is buried")))
}

// While a member is asked, a session opens at another, which was covered, and then the one at the first closes. There was always one.
func TestAbsenceIsOfOneMoment(t *testing.T) {
	s := newScript(t, 3)
	u := s.userOf("b0", "b1", "b2")
	x := s.open(s.m("b1"), u)
	s.run(2 * time.Second)
	s.late(100*time.Millisecond, is("Ask", false))
	call := s.begin(s.m("b0"), s.message(u, "m"))
	s.run(50 * time.Millisecond)
	y := s.open(s.m("b2"), u)
	x.close(hungUp)
	s.delivered(s.await(call), y)
}

// b1 was away from the registry for a moment, when b0 last read it; it has long come back, and knows.
func TestBurialNeedsAFreshReading(t *testing.T) {
	s := newScript(t, 3)
	b0, b1, b2 := s.m("b0"), s.m("b1"), s.m("b2")
	s.late(lost, func(m message) bool { return m.what == "register" && m.from == b1.place })
	s.run(3 * time.Second)
	s.cutOff(time.Minute, b0.place, b1.place)
	s.cutOff(time.Minute, b2.place, b1.place)
	s.run(9 * time.Second)
	if s.registry.entries[1].isPassing {
		t.Fatal("b1 is not away")
	}
	s.onTime()
	s.cutOff(30*time.Second, b0.place, registryPlace)
	s.cutOff(30*time.Second, b2.place, registryPlace)
	s.run(25 * time.Second)
	if !b1.node.IsServing() || len(b0.node.Known()) != 2 {
		t.Errorf("b1 serves %v; b0 knows %v", b1.node.IsServing(), b0.node.Known())
	}
}

// b1 was away both times when b0 read the registry, and there in between.
func TestBurialNeedsReadingsThatMeet(t *testing.T) {
	s := newScript(t, 3)
	b0, b1, b2 := s.m("b0"), s.m("b1"), s.m("b2")
	noHeartbeat := func(m message) bool { return m.what == "register" && m.from == b1.place }
	s.late(lost, noHeartbeat)
	s.run(3 * time.Second)
	s.cutOff(time.Minute, b0.place, b1.place)
	s.cutOff(time.Minute, b2.place, b1.place)
	s.run(9 * time.Second)
	s.onTime()
	s.cutOff(15*time.Second, b0.place, registryPlace)
	s.cutOff(15*time.Second, b2.place, registryPlace)
	s.run(4 * time.Second)
	s.late(lost, noHeartbeat)
	s.run(13 * time.Second)
	if s.registry.entries[1].isPassing || !b1.node.IsServing() || len(b0.node.Known()) != 2 {
		t.Errorf("b1 passes %v and serves %v; b0 knows %v", s.registry.entries[1].isPassing, b1.node.IsServing(), b0.node.Known())
	}
}

// What waited in a process that hung for longer than the lease must not be done before it has looked whether it is buried.
func TestFenceComesFirstAfterAStall(t *testing.T) {
	s := newScript(t, 3)
	u := s.userOf("b0", "b1", "b2")
	b0 := s.m("b0")
	b0.hang()
	s.run(12 * time.Second)
	var call *scriptCall
	b0.do(func() { call = s.begin(b0, s.message(u, "m")) })
	s.open(s.m("b1"), u) // what it has promised to b0 has lapsed
	b0.wake()
	s.unsettled(s.await(call))
	if !b0.node.IsFenced() {
		t.Error("it goes on")
	}
}

// A member alone cannot tell whether others have buried it: the registry must have confirmed it within the lease.
func TestAloneItNeedsTheRegistry(t *testing.T) {
	s := newScript(t, 1)
	u := s.userOf("b0")
	s.delivered(s.ask(s.m("b0"), s.message(u, "calm")))
	s.cutOff(14*time.Second, s.m("b0").place, registryPlace)
	s.run(12 * time.Second)
	s.unsettled(s.ask(s.m("b0"), s.message(u, "no registry")))
	s.run(4 * time.Second)
	s.delivered(s.ask(s.m("b0"), s.message(u, "again")))
}

// Others hold b1 dead by an operator's word: it hears of it from the next whom it asks, and says nothing certain.
func TestWhoIsHeldDeadStops(t *testing.T) {
	s := newScript(t, 3)
	u := s.userOf("b0", "b1", "b2")
	b0, b1 := s.m("b0"), s.m("b1")
	if !b0.node.Bury(b0.clock(), "b1") {
		t.Fatal("b0 does not know b1")
	}
	b0.node.Effects() // the judge does not hold with it
	s.unsettled(s.ask(b1, s.message(u, "m")))
	if !b1.node.IsFenced() {
		t.Error("b1 goes on")
	}
}

func TestALaterIncarnationSupersedes(t *testing.T) {
	peer := func(id string, incarnation uint64) homing.Peer {
		return homing.Peer{Process: homing.Process{Member: id, Incarnation: incarnation}, Addr: id}
	}
	n := homing.New(homing.Config{Self: peer("a", 1), Users: nobody})
	n.Start(0)
	n.Catalog(1, 1, []homing.Registration{{Peer: peer("a", 1)}})
	n.Effects()
	if _, ok := n.Admit(2, homing.Caller{Peer: peer("a", 2), Callee: peer("a", 1).Process}); ok {
		t.Error("it answers")
	}
	effects := n.Effects()
	if f, ok := effects[len(effects)-1].(homing.Fenced); !ok || !f.Superseded {
		t.Errorf("effects %v; want that it is fenced for good", effects)
	}
	q := &homing.Question{Deadline: 10}
	n.Ask(3, q)
	if q.Certain {
		t.Error("it is certain of something")
	}
}

func nobody() iter.Seq[homing.User] { return func(func(homing.User) bool) {} }

// A session was sent to its home; a push that comes there first waits for it.
func TestAPushWaitsForASessionOnItsWayHome(t *testing.T) {
	s := newScript(t, 3)
	u := s.userOf("b0", "b1", "b2")
	b0, b1 := s.m("b0"), s.m("b1")
	old := s.open(b1, u)
	s.run(2 * time.Second)
	old.close(moved)
	call := s.begin(s.m("b2"), s.message(u, "m"))
	s.run(500 * time.Millisecond)
	if call.over {
		t.Fatalf("it did not wait: %v", call.result)
	}
	// The way back is long: while the session is pending, it still waits.
	s.late(300*time.Millisecond, is("Announce", true))
	x := s.open(b0, u)
	s.delivered(s.await(call), x)

	x.close(hungUp)
	y := s.open(b1, u)
	s.run(1500 * time.Millisecond)
	y.close(moved)
	began := s.now
	s.delivered(s.ask(b0, s.message(u, "nobody comes")))
	if waited := s.now - began; waited < 1500*time.Millisecond || waited > 2500*time.Millisecond {
		t.Errorf("it waited for %v; want about 2 s", waited)
	}
}

func TestTooManyPushesWait(t *testing.T) {
	s := newScript(t, 3, func(k *kind) { k.held = 2 })
	u := s.userOf("b0", "b1", "b2")
	x := s.open(s.m("b1"), u)
	s.run(2 * time.Second)
	x.close(moved)
	calls := []*scriptCall{s.begin(s.m("b0"), s.message(u, "1")), s.begin(s.m("b0"), s.message(u, "2")), s.begin(s.m("b0"), s.message(u, "3"))}
	s.run(500 * time.Millisecond)
	if calls[0].over || calls[1].over || !calls[2].over {
		t.Errorf("over: %v, %v, %v; want the third alone", calls[0].over, calls[1].over, calls[2].over)
	}
	s.unsettled(s.await(calls[2]))
	s.delivered(s.await(calls[0]))
}

// In calm nobody is asked about a user, wherever the push comes in: the price of the protocol is one call to the home at most.
func TestCalmAsksNobody(t *testing.T) {
	s := newScript(t, 4)
	online, offline := s.userOf("b0"), s.userOf("b1")
	x := s.open(s.m("b0"), online)
	for _, at := range []string{"b0", "b1", "b2", "b3"} {
		first, second := s.ask(s.m(at), s.message(online, "on "+at)), s.ask(s.m(at), s.message(offline, "off "+at))
		s.delivered(first, x)
		s.delivered(second)
		if first.asks+second.asks > 0 || first.hops > 2 || second.hops > 2 {
			t.Errorf("by %s: %d and %d asked, %d and %d hops", at, first.asks, second.asks, first.hops, second.hops)
		}
	}
}

// A connection that broke may be a death: it is looked at right away, and not only when the next poll is due.
func TestSuspectIsPolledAtOnce(t *testing.T) {
	s := newScript(t, 3)
	b0, b1 := s.m("b0"), s.m("b1")
	b1.exit()
	b0.work(func(now homing.Instant) { b0.node.Suspect(now, b1.place) })
	s.run(10 * time.Millisecond)
	if len(b0.node.Known()) != 1 {
		t.Errorf("b0 knows %v", b0.node.Known())
	}
}

func TestTheDeadAreBounded(t *testing.T) {
	s := newScript(t, 1)
	b0 := s.m("b0")
	for i := range uint64(3000) {
		p := homing.Peer{Process: homing.Process{Member: fmt.Sprint("m", i), Incarnation: i}}
		b0.node.Handle(b0.clock(), homing.Caller{Peer: p, Callee: b0.self.Process}, homing.Goodbye{})
	}
	b0.node.Effects()
	if dead := b0.node.Dead(); dead == 0 || dead > 1024 || len(b0.node.Known()) > 0 {
		t.Errorf("it remembers %d dead and knows %d", dead, len(b0.node.Known()))
	}
}
