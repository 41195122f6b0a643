package homing

import "time"

// Effect is something the caller is to do.
type Effect interface{ effect() }

type (
	// Register asks to make this process known as joining and then to read the registry, consistently, for [Node.Catalog].
	Register struct{}
	// ReadCatalog asks for a consistent read of the registry, for [Node.Catalog].
	ReadCatalog struct{}
	// Joined says that the process takes sessions from now on: make it known as serving.
	Joined struct{}
	// Fenced says that others may hold this process dead. It must close all its sessions and come back as a new incarnation, with
	// a new Node. This one does nothing any more.
	Fenced struct {
		Cause      string
		Superseded bool // by a later incarnation of the member: to come back would take its place again
	}
	// Send asks to call a peer; the outcome goes to [Node.Replied] or [Node.Failed], with the same Call.
	Send struct {
		Call    uint64
		To      Peer
		Caller  Caller
		Request Request
		Timeout time.Duration
	}
	// Opened lets a session have its 101. From now on what the caller answers to Look, and to its peers, includes the session.
	Opened struct{ Opening *Opening }
	// Unopened refuses one: a peer that may believe that the user has no session here did not acknowledge it.
	Unopened struct{ Opening *Opening }
	// Look asks for what this process itself has to say to a question, for [Node.Looked]: deliver to the sessions here, or list them.
	Look struct{ Question *Question }
	// Ask asks a peer; its answer goes to [Node.Answered], a failure to [Node.Unanswered].
	Ask struct {
		Question *Question
		To       Peer
		Caller   Caller
		Forward  bool          // the peer is the home and finds out who else must hear of it; else it answers for itself alone
		Timeout  time.Duration // 0: until the question's deadline
	}
	// Settled ends a question.
	Settled struct{ Question *Question }
	// Died says that a process is held dead, and why. It is for the log.
	Died struct {
		Process Process
		Cause   Death
	}
	// RingChanged says that this process decides by another ring: sessions may be misplaced.
	RingChanged struct{}
)

func (Register) effect()    {}
func (ReadCatalog) effect() {}
func (Joined) effect()      {}
func (Fenced) effect()      {}
func (Send) effect()        {}
func (Opened) effect()      {}
func (Unopened) effect()    {}
func (Look) effect()        {}
func (Ask) effect()         {}
func (Settled) effect()     {}
func (Died) effect()        {}
func (RingChanged) effect() {}

// Death is the proof that a process holds no session any more.
type Death uint8

const (
	SaidGoodbye Death = iota
	Succeeded         // a later incarnation of the member is there
	Refused           // its host refuses connections
	Silent            // buried: silent to most, and away from the registry
	ByHand            // buried by an operator
	Heard             // a peer has proof
)

func (d Death) String() string {
	return [...]string{"goodbye", "successor", "connection_refused", "silent", "by_hand", "heard"}[d]
}
