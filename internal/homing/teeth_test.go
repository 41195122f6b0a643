package homing_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tooth is one deliberate breakage of the protocol. A test must fail with it: the one that is named, or the simulation.
type tooth struct {
	rule     int // of DESIGN.md
	name     string
	file     string
	old, new string // old occurs once
	test     string // "": the simulation
}

// TestTeeth breaks one rule after the other, and expects that somebody notices. That the unbroken protocol passes the same worlds and
// tests is said by these themselves.
func TestTeeth(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the package many times over")
	}
	for _, bite := range teeth {
		t.Run(fmt.Sprintf("%d %s", bite.rule, bite.name), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			source, err := os.ReadFile(bite.file)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(source), bite.old); n != 1 {
				t.Fatalf("%s has %d times what is to be broken:\n%s", bite.file, n, bite.old)
			}
			broken := filepath.Join(dir, bite.file)
			if err := os.WriteFile(broken, []byte(strings.Replace(string(source), bite.old, bite.new, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			whole, err := filepath.Abs(bite.file)
			if err != nil {
				t.Fatal(err)
			}
			overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{whole: broken}})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
				t.Fatal(err)
			}
			binary := filepath.Join(dir, "broken.test")
			build := exec.Command("go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, ".")
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			args := []string{"-test.run=^TestSim$", "-sim.seeds=250", "-sim.stop=1", "-test.timeout=120s"}
			if bite.test != "" {
				args = []string{"-test.run=^" + bite.test + "$", "-test.timeout=120s"}
			}
			run := exec.Command(binary, append(args, "-test.v")...)
			run.Env = append(os.Environ(), "GOMAXPROCS=1")
			out, err := run.CombinedOutput()
			if err == nil {
				t.Errorf("nobody noticed")
			} else if !strings.Contains(string(out), "--- FAIL: Test") {
				t.Errorf("it failed in another way than by a test: %v\n%s", err, out)
			}
			t.Log(noticed(string(out)))
		})
	}
}

// noticed is the line that says how the breakage showed.
func noticed(out string) string {
	for line := range strings.Lines(out) {
		if strings.Contains(line, " s: ") || strings.Contains(line, "_test.go:") && !strings.Contains(line, "seed") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

var teeth = []tooth{
	{rule: 1, name: "no join barrier", file: "join.go", old: `		if !p.greeted {
			return`, new: `		if !p.greeted {
			continue`},
	{rule: 1, name: "joined before it is registered", file: "join.go", old: ` || !n.hasCatalog `, new: ` `, test: "TestJoinsOnlyOnceItIsRegistered"},
	{rule: 2, name: "lease counted from receipt", file: "promise.go", old: `sent.plus(n.cfg.Lease)`, new: `now.plus(n.cfg.Lease)`, test: "TestLeaseCountsFromTheQuestion"},
	{rule: 2, name: "a promise names nobody", file: "promise.go", old: `		out.Users = append(out.Users, u)
`, new: `		_ = u
`},
	{rule: 2, name: "a promise is not kept", file: "promise.go", old: `	g.until[p.Process] = now.plus(n.cfg.Lease + n.cfg.Lease/slack)
`, new: ""},
	{rule: 2, name: "unchanged since another reply", file: "promise.go", old: `seen > 0 && p.changed <= seen`, new: `seen > 0`},
	{rule: 2, name: "an announcement is forgotten by an earlier reply", file: "promise.go", old: `		if sequence > r.Sequence {
			listed`, new: `		if false {
			listed`, test: "TestCloseAndOpenOutOfOrder"},
	{rule: 2, name: "no slack for clocks", file: "promise.go", old: ` + n.cfg.Lease/slack)`, new: ` + 0*slack)`, test: "TestClocksOfUnequalSpeed"},
	{rule: 3, name: "announce after the 101", file: "opening.go", old: `	if len(owed) == 0 {
`, new: `	if true {
`},
	{rule: 3, name: "only the current view", file: "promise.go", old: `		owner := g.ring.OwnerOfHash(uint64(u))
		if owner == n.cfg.Self.Member {`, new: `		owner := g.ring.OwnerOfHash(uint64(u))
		if owner == n.cfg.Self.Member || g.ring != n.ring {`},
	{rule: 3, name: "not checked again before the 101", file: "opening.go", old: `			o.acked[p] = struct{}{}
			n.advance(now, o)
`, new: `			n.endOpening(o)
			n.counters[o.User%User(len(n.counters))]++
			n.emit(Opened{o})
`},
	{rule: 3, name: "an announcement is not taken in", file: "call.go", old: `		n.announced(p, r)
`, new: ""},
	{rule: 4, name: "covered by one who thinks another the home", file: "promise.go", old: ` || memo.owner(p.ring, u) != self {`, new: ` {`},
	{rule: 5, name: "no ask", file: "question.go", old: `need = n.uncovered(now, q.User)`, new: `need = nil`},
	{rule: 5, name: "the home forwards, too", file: "question.go", old: `!q.Everywhere && !q.Forwarded {`, new: `!q.Everywhere {`},
	{rule: 5, name: "newcomers are not asked", file: "question.go", old: `	if n.askUncovered(now, q) { // newcomers`, new: `	if false { // newcomers`, test: "TestAbsenceIsOfOneMoment"},
	{rule: 5, name: "no news in answers", file: "peer.go", old: `	for _, p := range c.Known {
		n.learn(now, p)
	}`, new: ``},
	{rule: 6, name: "silence is consent", file: "question.go", old: `q.unsure || len(q.Silent) > 0 || alone`, new: `q.unsure || alone`},
	{rule: 6, name: "undecided is decided", file: "question.go", old: `	q.unsure = q.unsure || a.Undecided
`, new: ""},
	{rule: 6, name: "counted twice", file: "question.go", old: `!slices.Contains(q.Sessions, s)`, new: `true`},
	{rule: 6, name: "absence at many moments", file: "question.go", old: `unchanged && (q.first != nil || len(q.asked) == 0)`, new: `true`},
	{rule: 6, name: "absence although one came", file: "question.go", old: `	unchanged := q.counted == n.Openings(q.User)
`, new: `	unchanged := true
`},
	{rule: 6, name: "an opening is not counted", file: "opening.go", old: `		n.counters[o.User%User(len(n.counters))]++
`, new: ``},
	{rule: 8, name: "no memory", file: "memory.go", old: `if e := m.byKey[key]; e != nil {`, new: `if e := m.byKey[key]; false {`},
	{rule: 8, name: "the same id with another text", file: "memory.go", old: `x.fingerprint != fingerprint`, new: `false`},
	{rule: 8, name: "a full memory forgets", file: "memory.go", old: `		return value, false, ErrFull
`, new: `		x := m.oldest.Remove(m.oldest.Front()).(*memory[T])
		delete(m.byKey, MessageKey{x.one.user, x.message})
		m.taken--
`},
	{rule: 8, name: "of many, a busy one is forgotten", file: "many.go", old: `if m.busy(k.value) {`, new: `if false {`, test: "TestManyAreForgotten"},
	{rule: 8, name: "of many, who comes as all are forgotten is lost", file: "many.go", old: `len(y.users) == 0 { // as place`, new: `y.users == nil { // as place`, test: "TestManyAreForgotten"},
	{rule: 9, name: "buried without the registry", file: "bury.go", old: ` || p.absentSince == never || now.since(p.absentSince) < limit ||`, new: ` ||`, test: "TestBurialNeedsTheRegistry"},
	{rule: 9, name: "buried without a majority", file: "bury.go", old: `silentTo*2 > peersOfIt`, new: `silentTo+peersOfIt > 0`, test: "TestBurialNeedsAMajority"},
	{rule: 9, name: "a refusal of the host is taken for death where it is not trusted", file: "question.go",
		old: `f == ConnectionRefused && n.cfg.TrustRefused`, new: `true`},
	{rule: 9, name: "no fence", file: "node.go", old: `	if n.isCutOff(now) {`, new: `	if false {`, test: "TestFenceComesFirstAfterAStall"},
	{rule: 9, name: "who joins has a vote", file: "bury.go", old: `	if n.phase == joining {
		return nil`, new: `	if false {
		return nil`, test: "TestWhoJoinsHasNoVote"},
	{rule: 9, name: "who joins is company", file: "node.go", old: `if answered && p.joining {`, new: `if false {`, test: "TestWhoJoinsIsNoCompany"},
	{rule: 9, name: "buried by an old reading", file: "bury.go", old: `now.since(n.readAt) > buryMargin ||`, new: ``, test: "TestBurialNeedsAFreshReading"},
	{rule: 9, name: "buried by readings far apart", file: "join.go", old: `p.absentSince == never || broken:`, new: `p.absentSince == never || false && broken:`,
		test: "TestBurialNeedsReadingsThatMeet"},
	{rule: 9, name: "what the fenced have under way never ends", file: "question.go", old: `	p := n.heard(now, sent, from, c)
	if q.state == settled { // fenced meanwhile
		return
	}
	n.answered(q, from)
`, new: `	n.answered(q, from)
	p := n.heard(now, sent, from, c)
	if q.state == settled {
		return
	}
`, test: "TestWhoIsHeldDeadStops"},
	{rule: 9, name: "alone and certain", file: "question.go", old: `alone := len(n.order) == 0 &&`, new: `alone := false &&`, test: "TestAloneItNeedsTheRegistry"},
	{rule: 9, name: "a later incarnation is no news", file: "peer.go", old: `			n.fence("a later incarnation of this member is there")
`, new: ``, test: "TestALaterIncarnationSupersedes"},
	{rule: 10, name: "a broadcast asks the uncovered", file: "question.go", old: `	if !q.Everywhere {
		need`, new: `	{
		need`},
	{rule: 11, name: "no order", file: "order.go", old: `	if sequence < last {`, new: `	if false && sequence < last {`},
	{rule: 12, name: "moved before the home knows", file: "note.go", old: ` && home.processed >= x.version`, new: ``, test: "TestEdgeCutFromTheHomeOnly"},
	{rule: 12, name: "moved to one who thinks another the home", file: "note.go", old: ` && home.ring.OwnerOfHash(uint64(u)) == home.Member`, new: ``,
		test: "TestEdgeCutFromTheHomeOnly"},
	{rule: 12, name: "moved while views change", file: "note.go", old: ` || now.since(n.ringSince) < n.cfg.Settle`, new: ``, test: "TestEdgeCutFromTheHomeOnly"},
	{rule: 12, name: "no wait for a session on its way", file: "question.go", old: `	case q.moving <= now:
		n.settle(q, true)
	case n.held`, new: `	case true:
		n.settle(q, true)
	case n.held`, test: "TestAPushWaitsForASessionOnItsWayHome"},
	{rule: 12, name: "the wait does not end when it comes", file: "opening.go", old: `		n.resumeHeld(now, o.User)
`, new: ``, test: "TestAPushWaitsForASessionOnItsWayHome"},
	{rule: 12, name: "any number of pushes wait", file: "question.go", old: `n.held >= n.cfg.MaxHeld`, new: `false`, test: "TestTooManyPushesWait"},
	{rule: 13, name: "who drains stays on the ring", file: "peer.go", old: `		return n.phase == serving
`, new: `		return true
`, test: "TestDrainBeforeAnnouncing"},
	{rule: 13, name: "one that has left answers", file: "node.go", old: `	n.phase = left
`, new: ``, test: "TestOneThatHasLeftSaysNothing"},
	{rule: 13, name: "one that drains before it has joined answers", file: "node.go", old: `		n.neverJoins = true
		return
`, new: ``, test: "TestOneThatDrainsBeforeItHasJoinedNeverJoins"},
	{rule: 14, name: "promises are never forgotten", file: "promise.go", old: `			if until < now || n.isDead(p) {`, new: `			if false && until < now {`},
	{rule: 14, name: "the dead are news for ever", file: "process.go", old: `known[member] != nil || member == self.Member`, new: `false`},
	{rule: 14, name: "the dead are never forgotten", file: "peer.go", old: `	if len(n.dead) > maxDead {`, new: `	if false {`, test: "TestTheDeadAreBounded"},
	{rule: 14, name: "notes are never forgotten", file: "note.go", old: `	for u, x := range n.noted {
		n.dropNote(now, u, x)
	}
`, new: ``},
	{rule: 14, name: "a late announcement lists for ever", file: "promise.go", old: `	if r.Sequence <= p.sequence {
		return
	}
	if`, new: `	if`},
}
