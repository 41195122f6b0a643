package homing

import (
	"errors"
	"slices"
	"time"
)

// Question finds every session of a user, or of everybody: to push to them, or to list them. Its result stands once Settled names
// it.
type Question struct {
	User       User
	Everywhere bool // ask everybody, whoever is covered: a broadcast
	Forwarded  bool // from the member that a sender called: stay with it
	Deadline   Instant
	Context    any // the caller's own

	// the result
	Sessions []string  // that took it or are open, each once
	Certain  bool      // no session that was open throughout was left out; with no sessions: for one moment there was none
	Silent   []Process // who was asked, is not known to be dead, and did not answer
	Final    error     // some process refused the question itself; Certain is false

	state   questionState
	look    bool // the caller looks for sessions here
	counted uint64
	waiting map[Process]Instant // asked and not answered, with when
	asked   map[Process]uint64  // in this round, with the answer's count of openings
	first   map[Process]uint64  // asked in the round before, where this one only checks that nobody opened a session meanwhile
	rounds  int
	unsure  bool // something is undecided that no death will settle
	moving  Instant
	proved  bool // for one moment there was no session anywhere
}

type questionState uint8

const (
	collecting questionState = iota
	forwarding               // the home's answer is waited for
	settling                 // the home has answered for everybody
	holding                  // nobody is there, but a session was sent here just now
	settled
)

const maxRounds = 5 // a user whose sessions come and go faster than that is unsettled

// ErrNotJoined is the outcome of a question to a process that has not joined or is fenced: ask another member.
var ErrNotJoined = errors.New("this process has not joined")

// Ask starts a question; user, deadline and so on are set in q.
func (n *Node) Ask(now Instant, q *Question) {
	if !n.wake(now) || n.phase == joining {
		n.giveUp(q)
		return
	}
	q.moving = never
	n.lookHere(q)
	if !q.Everywhere && !q.Forwarded {
		if home := n.home(q.User); home != nil {
			q.state = forwarding
			n.ask(now, q, home, true)
			return
		}
	}
	n.askUncovered(now, q)
}

// home returns the user's home where that is another process that can be asked.
func (n *Node) home(u User) *peer {
	owner := n.ring.OwnerOfHash(uint64(u))
	if owner == n.cfg.Self.Member {
		return nil
	}
	return n.known[owner]
}

func (n *Node) lookHere(q *Question) {
	q.look = true
	q.counted = n.Openings(q.User)
	n.emit(Look{q})
}

func (n *Node) ask(now Instant, q *Question, p *peer, forward bool) {
	if q.waiting == nil {
		q.waiting, q.asked = make(map[Process]Instant), make(map[Process]uint64)
	}
	if len(q.waiting) == 0 {
		n.questions = append(n.questions, q)
	}
	q.waiting[p.Process] = now
	var timeout time.Duration
	if forward { // leaves time to ask the others where the home hangs
		timeout = q.Deadline.Until(now) / 2
	}
	n.emit(Ask{Question: q, To: p.Peer, Caller: n.caller(p.Process), Forward: forward, Timeout: timeout})
}

// askUncovered asks, of those whose answer is needed, who has not been asked in this round. It reports whether there was one.
func (n *Node) askUncovered(now Instant, q *Question) bool {
	need := n.order
	if !q.Everywhere {
		need = n.uncovered(now, q.User)
	}
	some := false
	for _, p := range need {
		if _, done := q.asked[p.Process]; !done {
			n.ask(now, q, p, false)
			q.asked[p.Process] = 0
			some = true
		}
	}
	return some
}

// Looked takes in what this process itself has to say.
func (n *Node) Looked(now Instant, q *Question, a Answer) {
	if q.state == settled {
		return
	}
	q.look = false
	q.add(a)
	if !n.wake(now) {
		n.giveUp(q)
		return
	}
	if moving := n.Moving(now, q.User); moving > 0 {
		q.moving = max(q.moving, now.plus(moving))
	}
	n.step(now, q)
	n.releaseDead(now)
}

// Answered takes in the answer of a process that was asked.
func (n *Node) Answered(now Instant, q *Question, from Process, c Callee, a Answer) {
	if q.state == settled || !n.wake(now) {
		return
	}
	sent, asked := q.waiting[from]
	if !asked {
		return
	}
	p := n.heard(now, sent, from, c)
	if q.state == settled { // fenced meanwhile
		return
	}
	n.answered(q, from)
	switch {
	case p == nil || p.Process != from || q.state == forwarding && c.Refusal != Accepted:
		n.failed(now, q, from)
	case c.Refusal == NotJoined: // it holds none
		q.asked[from] = 0
	default:
		q.asked[from] = a.Openings
		if a.Moving > 0 {
			q.moving = max(q.moving, now.plus(a.Moving))
		}
		if q.state == forwarding {
			n.homeAnswered(now, q, a)
		} else {
			q.add(a)
		}
	}
	n.step(now, q)
	n.releaseDead(now)
}

// Unanswered takes in that a process could not be asked, or did not answer.
func (n *Node) Unanswered(now Instant, q *Question, from Process, f Failure) {
	if q.state == settled || !n.wake(now) {
		return
	}
	if _, asked := q.waiting[from]; !asked {
		return
	}
	n.answered(q, from)
	if f == ConnectionRefused && n.cfg.TrustRefused {
		n.kill(now, from, Refused)
	}
	n.failed(now, q, from)
	n.step(now, q)
	n.releaseDead(now)
}

// homeAnswered ends forwarding: the home's complete answer is the answer; else this process finds out for itself, and asks again
// for what the home could not settle.
func (n *Node) homeAnswered(now Instant, q *Question, a Answer) {
	if a.Complete {
		q.add(a)
		q.state = settling
		return
	}
	a.Undecided = false
	q.add(a)
	n.coordinate(now, q)
}

func (n *Node) coordinate(now Instant, q *Question) {
	q.state = collecting
	clear(q.asked)
	n.askUncovered(now, q)
}

// failed is what follows when a process gave no answer.
func (n *Node) failed(now Instant, q *Question, from Process) {
	if q.state == forwarding {
		n.coordinate(now, q)
		return
	}
	if n.alive(from) != nil {
		q.Silent = append(q.Silent, from)
	}
}

func (n *Node) answered(q *Question, from Process) {
	delete(q.waiting, from)
	if len(q.waiting) == 0 {
		n.unlist(q)
	}
}

func (n *Node) unlist(q *Question) {
	if i := slices.Index(n.questions, q); i >= 0 {
		n.questions = slices.Delete(n.questions, i, i+1)
	}
}

// add takes over an answer's sessions, each once.
func (q *Question) add(a Answer) {
	for _, s := range a.Sessions {
		if !slices.Contains(q.Sessions, s) {
			q.Sessions = append(q.Sessions, s)
		}
	}
	q.unsure = q.unsure || a.Undecided
	if a.Final != nil && q.Final == nil {
		q.Final = a.Final
	}
}

// step goes on where everybody asked has answered or failed.
func (n *Node) step(now Instant, q *Question) {
	if q.state == settled || q.state == holding || q.look || len(q.waiting) > 0 {
		return
	}
	if q.Final != nil {
		n.settle(q, false)
		return
	}
	if q.state == settling {
		n.settle(q, !q.unsure)
		return
	}
	if n.askUncovered(now, q) { // newcomers that an answer named; promises that lapsed meanwhile
		return
	}
	q.Silent = slices.DeleteFunc(q.Silent, func(p Process) bool { return n.alive(p) == nil })
	alone := len(n.order) == 0 && now.since(n.confirmed) > n.cfg.Lease // nobody could tell that others have buried us
	switch {
	case q.unsure || len(q.Silent) > 0 || alone:
		n.settle(q, false)
	case len(q.Sessions) > 0 || q.Everywhere:
		n.settle(q, true)
	default:
		n.proveAbsence(now, q)
	}
}

// proveAbsence is reached when nobody has a session of the user. Everybody was looked at at another moment, though, and a user may
// come here while he leaves there. The covered are without a session right now; those who were asked are asked once more: where
// nobody opened one meanwhile, there was none anywhere at this moment.
func (n *Node) proveAbsence(now Instant, q *Question) {
	unchanged := q.counted == n.Openings(q.User)
	for p, openings := range q.first {
		if again, asked := q.asked[p]; !asked || again != openings || n.alive(p) == nil {
			unchanged = false
		}
	}
	switch {
	case unchanged && (q.first != nil || len(q.asked) == 0):
		n.absent(now, q)
	case q.rounds >= maxRounds:
		n.settle(q, false)
	case unchanged && q.first == nil:
		n.askAgain(now, q)
	default:
		n.again(now, q)
	}
}

// askAgain asks those who were asked once more.
func (n *Node) askAgain(now Instant, q *Question) {
	q.rounds++
	q.first = make(map[Process]uint64, len(q.asked))
	for _, p := range n.order {
		if openings, asked := q.asked[p.Process]; asked {
			q.first[p.Process] = openings
			n.ask(now, q, p, false)
		}
	}
	if len(q.first) == 0 { // they are all dead
		n.absent(now, q)
	}
}

// again begins a new round: somebody came while we looked.
func (n *Node) again(now Instant, q *Question) {
	q.rounds++
	q.first = nil
	clear(q.asked)
	n.lookHere(q)
	n.askUncovered(now, q)
}

// absent ends a question for a user who is nowhere, or holds it while a session that was sent here is on its way.
func (n *Node) absent(now Instant, q *Question) {
	q.proved = true
	switch {
	case q.moving <= now:
		n.settle(q, true)
	case n.held >= n.cfg.MaxHeld:
		n.settle(q, false)
	default:
		q.state = holding
		n.held++
		n.questions = append(n.questions, q)
	}
}

// resumeHeld goes on with questions that wait for a session of u.
func (n *Node) resumeHeld(now Instant, u User) {
	if n.held == 0 {
		return
	}
	for _, q := range slices.Clone(n.questions) {
		if q.state == holding && q.User == u {
			n.release(q)
			q.rounds, q.moving = 0, never
			n.again(now, q)
		}
	}
}

func (n *Node) release(q *Question) {
	n.unlist(q)
	n.held--
	q.state = collecting
}

// holdsDue gives up waiting for sessions that have not come.
func (n *Node) holdsDue(now Instant) {
	if n.held == 0 {
		return
	}
	for _, q := range slices.Clone(n.questions) {
		if q.state == holding && q.moving <= now {
			n.release(q)
			n.settle(q, true)
		}
	}
}

// Expire ends a question whose time is over with what is known.
func (n *Node) Expire(now Instant, q *Question) {
	if q.state == settled {
		return
	}
	if !n.wake(now) {
		n.giveUp(q)
		return
	}
	if q.state == holding {
		n.release(q)
	}
	for p := range q.waiting {
		if n.alive(p) != nil {
			q.Silent = append(q.Silent, p)
		}
	}
	slices.SortFunc(q.Silent, byMember)
	n.settle(q, q.proved && len(q.Sessions) == 0 && q.Final == nil)
}

func (n *Node) settle(q *Question, certain bool) {
	if len(q.waiting) > 0 {
		n.unlist(q)
		clear(q.waiting)
	}
	q.state, q.Certain = settled, certain
	n.emit(Settled{q})
}

// settleAll ends what is under way here with no certainty: this process is fenced.
func (n *Node) settleAll() {
	for _, q := range slices.Clone(n.questions) {
		if q.state == holding {
			n.release(q)
		}
		n.giveUp(q)
	}
}

func (n *Node) giveUp(q *Question) {
	if q.state != settled {
		q.Final = ErrNotJoined
		n.settle(q, false)
	}
}

// releaseDead goes on with what waits for the answer of somebody who has died.
func (n *Node) releaseDead(now Instant) {
	for n.anyDied && n.phase < fenced {
		n.anyDied = false
		for _, q := range slices.Clone(n.questions) {
			for p := range q.waiting {
				if n.alive(p) == nil {
					n.answered(q, p)
					if q.state == forwarding {
						n.coordinate(now, q)
					}
				}
			}
			n.step(now, q)
		}
		for _, o := range slices.Clone(n.openings) {
			n.advance(now, o)
		}
		n.announceQueued(now)
		n.finishJoin(now)
	}
}
