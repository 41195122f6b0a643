package homing_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/selvedge/selvedge/internal/homing"
)

// tally counts what was reached, so that a world in which nothing happens does not pass for one in which all went well.
type tally map[string]int

func (t tally) count(what string) { t[what]++ }

func (t tally) add(o tally) {
	for what, n := range o {
		t[what] += n
	}
}

func (t tally) String() string {
	var s strings.Builder
	for _, what := range slices.Sorted(maps.Keys(t)) {
		fmt.Fprintf(&s, "%10d  %s\n", t[what], what)
	}
	return s.String()
}

func (t tally) pushed(k kind, r result) {
	if r.final == nil {
		t.count("pushes in a world that is " + k.name)
		if r.certain {
			t.count("certain in a world that is " + k.name)
		}
	}
	switch {
	case r.certain && len(r.sessions) > 0:
		t.count("push DELIVERED")
	case r.certain:
		t.count("push OFFLINE")
	case r.final != nil:
		t.count("push refused")
	default:
		t.count("push unsettled")
	}
}

// reached are the things that the default run must come to.
var reached = []string{
	"effect Register", "effect ReadCatalog", "effect Joined", "effect Fenced", "effect Send", "effect Opened", "effect Unopened",
	"effect Look", "effect Ask", "effect Settled", "effect Died", "effect RingChanged",
	"death goodbye", "death successor", "death connection_refused", "death silent", "death by_hand", "death heard",
	"hello heard", "announcement heard", "goodbye heard", "announcement by a promise under an old ring",
	"promise unchanged", "promise with users", "promise without users", "promise that names the silent",
	"reply with news of others", "reply of one who drains",
	"refusal not me", "refusal held dead", "refusal not joined",
	"ask the home", "ask a leaf", "ask once more", "ask after the home failed",
	"absence proved at once", "absence proved by a second look", "looked again, since somebody came", "somebody silent", "some session undecided",
	"tick while a push waits for a session on its way", "question expired", "question to one who has not joined", "opening cancelled",
	"session moved", "session kicked", "presence certain", "broadcast answered", "broadcast that names the silent",
	"push DELIVERED", "push OFFLINE", "push refused", "push unsettled", "certain by the home", "certain after a retry",
	"certain after asking", "certain without asking", "final: too late", "final: " + homing.ErrReused.Error(), "final: " + homing.ErrFull.Error(),
	"buried while it hung", "operator: buried by hand what the members could not", "registry: an older view",
}

func (t tally) send(n *homing.Node, e homing.Send) {
	if a, ok := e.Request.(homing.Announce); ok && n.Ring().OwnerOfHash(uint64(a.Users[0])) != e.To.Member {
		t.count("announcement by a promise under an old ring")
	}
}

func (t tally) settled(q *homing.Question) {
	if q.Rounds() > 1 {
		t.count("looked again, since somebody came")
	}
	switch {
	case q.Final != nil:
	case len(q.Silent) > 0:
		t.count("somebody silent")
	case q.Everywhere || len(q.Sessions) > 0:
	case q.Certain && q.Proved() && q.Rounds() > 0:
		t.count("absence proved by a second look")
	case q.Certain && q.Proved():
		t.count("absence proved at once")
	}
}

func (t tally) certain(a *attempt, r result) {
	if a.tries > 1 {
		t.count("certain after a retry")
	}
	if r.hops > 1 {
		t.count("certain by the home")
	}
	if r.asks > 0 {
		t.count("certain after asking")
	} else {
		t.count("certain without asking")
	}
}

func (t tally) ask(in *inquiry, e homing.Ask) {
	switch {
	case e.Forward:
		in.hops++
		t.count("ask the home")
	default:
		in.asks++
		in.asked[e.To.Process]++
		if in.asked[e.To.Process] == 2 {
			t.count("ask once more")
		}
		if in.failed {
			t.count("ask after the home failed")
		}
		t.count("ask a leaf")
	}
}

func (t tally) refusal(r homing.Refusal) {
	if r != homing.Accepted {
		t.count("refusal " + [...]string{"accepted", "not me", "held dead", "not joined", "unknown"}[r])
	}
}

func (t tally) reply(request homing.Request, r homing.Reply) {
	t.refusal(r.Callee.Refusal)
	if len(r.Callee.Known) > 0 {
		t.count("reply with news of others")
	}
	if r.Callee.Draining {
		t.count("reply of one who drains")
	}
	switch request.(type) {
	case homing.Announce:
		t.count("announcement heard")
	case homing.Goodbye:
		t.count("goodbye heard")
	case homing.Hello:
		t.count("hello heard")
	}
	switch p := r.Promise; {
	case p == nil:
	case p.Unchanged:
		t.count("promise unchanged")
	case len(p.Users) > 0:
		t.count("promise with users")
	default:
		t.count("promise without users")
	}
	if r.Promise != nil && len(r.Promise.Silent) > 0 {
		t.count("promise that names the silent")
	}
}
