package homing

import (
	"time"

	"github.com/selvedge/selvedge/hashring"
)

// Caller opens every request.
type Caller struct {
	Peer   Peer
	Callee Process // whom the caller believes to speak to; incarnation 0: whichever
	Gossip uint64  // digest of whom the caller knows and holds dead
}

// Callee opens every reply.
type Callee struct {
	Peer     Peer
	Draining bool
	Refusal  Refusal
	Known    []Peer    // empty where the caller's gossip digest equals the callee's
	Dead     []Process // the same
}

// Refusal is why a request was not looked at, but for NotJoined.
type Refusal uint8

const (
	Accepted  Refusal = iota
	NotMe             // another process lives at this address
	HeldDead          // the callee holds the caller dead: it must close its sessions and join anew
	NotJoined         // the callee is joining and holds no session: it hears and promises, and looks at no question
	Unknown           // a request of a later release
)

// Request is one of Hello, Poll, Announce and Goodbye. Questions about users travel as [Ask] effects: what they carry is not this
// package's.
type Request interface{ request() }

// Hello greets: the caller is joining. An accepted reply acknowledges it.
type Hello struct{}

// Poll asks for a promise.
type Poll struct {
	Seen uint64 // the sequence of the callee's last reply that the caller has processed; 0: none
}

// Announce names users of the callee's whom the caller is about to give a session. An accepted reply acknowledges them.
type Announce struct {
	Sequence uint64 // of the caller, as in Promise
	Users    []User
}

// Goodbye says that the caller holds no session any more and never will.
type Goodbye struct{}

func (Hello) request()    {}
func (Poll) request()     {}
func (Announce) request() {}
func (Goodbye) request()  {}

// Reply answers a request; Promise is set in the reply to a Poll alone.
type Reply struct {
	Callee  Callee
	Promise *Promise
}

// Promise says: from the moment of the reply for the lease, no session of a user whom the caller owns on Ring gets its 101 here
// without the caller's acknowledgement. Users are those it holds at that moment, openings under way included.
type Promise struct {
	Sequence  uint64 // grows with every reply of the callee
	Ring      *hashring.Ring
	Unchanged bool // Users is as it was in the reply that the caller has seen last
	Users     []User
	Silent    map[string]time.Duration // members that the callee has not heard of for more than a second
}

// Answer is what one process says to a question about a user.
type Answer struct {
	Sessions  []string      // ids of the sessions that took the push, or that are open
	Undecided bool          // some session here has neither taken it nor closed
	Complete  bool          // to a forwarded question: no session was left out anywhere
	Openings  uint64        // counts the 101s of sessions of this user, and of some others
	Moving    time.Duration // a session of the user was just sent to its home, and is expected there within this time
	Final     error         // a refusal of the question itself: whoever else is asked, this is the outcome
}

// Failure is why a call brought no reply.
type Failure uint8

const (
	NoAnswer          Failure = iota // in time, or the connection broke: it may have been heard, or not
	ConnectionRefused                // by the host: no process listens at that address
)
