package homing

import "github.com/selvedge/selvedge/hashring"

// Hops counts the members that a push has passed, the one that has it now included.
const (
	FirstHop = 1 // from a sender
	HomeHop  = 2 // forwarded by the first member: never forwarded again
	LeafHop  = 3 // a question: answered from one's own sessions alone
)

// View is what one member knows at one moment.
type View struct {
	Ring  *hashring.Ring
	Self  string   // the deciding member
	Peers []string // every other member that could hold a session: in the ring or not, healthy or not
	Calm  bool     // views and sessions had the time to meet: no change of the ring, and nothing of ours misplaced, lately
}

// Plan says what the deciding member does with a push. At every hop its own sessions are served first.
type Plan struct {
	Forward string   // hand it to this member, the home, and take its answer as the rest of ours; "": do not
	Ask     []string // these members must answer for the outcome to be certain
	Always  bool     // ask even where own sessions took the message; else only where none did
}

// Route plans a push to user that is at its hops-th member.
func (v View) Route(user string, hops int) Plan {
	if hops >= LeafHop {
		return Plan{}
	}
	home := v.Ring.Owner(user)
	if hops == FirstHop && home != v.Self && home != "" {
		return Plan{Forward: home}
	}
	return v.Coordinate(home == v.Self)
}

// Coordinate is the plan of the member at which a push stays: the home, or whoever has it when the home cannot be reached. All
// of a user's sessions meet at the home while views are calm, so a home with sessions has them all; an empty home is no proof
// of absence, and a member that is not the home proves nothing without the others.
func (v View) Coordinate(home bool) Plan {
	return Plan{Ask: v.Peers, Always: !home || !v.Calm}
}
