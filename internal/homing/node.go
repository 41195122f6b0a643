package homing

import (
	"iter"
	"time"

	"github.com/selvedge/selvedge/hashring"
)

// Config is what a Node is made of. The zero value of a time is the default that is given with it.
type Config struct {
	Self         Peer
	Users        func() iter.Seq[User] // of every session here, one by one, pending ones included; called within a call to the Node
	Lease        time.Duration         // of a promise, 10s: above common stalls, since a member that stalls for longer must join anew
	Poll         time.Duration         // 1.25s: how often each peer is asked for a promise
	CallTimeout  time.Duration         // 2s: of hellos, polls and announcements
	OpenTimeout  time.Duration         // 900ms: for acknowledgements before a 101
	Settle       time.Duration         // 3s: how long the ring must not have changed before sessions are moved
	MoveGrace    time.Duration         // 2s: how long a push waits for a session that was sent to its home
	MaxHeld      int                   // 4096: pushes that wait so at once; beyond, they end unsettled
	TrustRefused bool                  // take a refused connection for the process's death: not behind NAT or forwarders
}

func (c Config) withDefaults() Config {
	or := func(d *time.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = otherwise
		}
	}
	or(&c.Lease, 10*time.Second)
	or(&c.Poll, 1250*time.Millisecond)
	or(&c.CallTimeout, 2*time.Second)
	or(&c.OpenTimeout, 900*time.Millisecond)
	or(&c.Settle, 3*time.Second)
	or(&c.MoveGrace, 2*time.Second)
	if c.MaxHeld == 0 {
		c.MaxHeld = 4096
	}
	return c
}

// Node is one incarnation of one member. It is not safe for concurrent use.
type Node struct {
	cfg   Config
	phase phase
	out   []Effect
	calls map[uint64]call // under way
	last  uint64          // call

	// who is there
	known       map[string]*peer // everybody else that was heard of and is not dead, by member
	order       []*peer          // the same, sorted: whatever walks them has effects in one order
	dead        map[string]burial
	gossip      uint64  // digest of both
	confirmed   Instant // when the registry last confirmed that this process is there
	readAt      Instant // when the registry was read last
	hasCatalog  bool    // it was read since this process is registered
	nextGreet   Instant
	nextCatalog Instant
	isWatching  bool // somebody is silent
	superseded  bool // by a later incarnation
	neverJoins  bool // it drains before it has joined

	// by which ring
	snapshot     *hashring.Ring    // the registry's
	incarnations map[string]uint64 // of the snapshot's members; none for those that take no part, 0 where not known
	ring         *hashring.Ring    // the snapshot less the dead, the unknown and the draining
	ringSince    Instant
	derivedFrom  *hashring.Ring   // the snapshot that ring was made of,
	leftOut      []string         // and whom it leaves out of that
	rings        []*hashring.Ring // recent ones, so that equal rings are one

	// what is told to others
	version  uint64 // bumped with every promise and every change of what they list
	grants   []*grant
	noted    map[User]*note
	byOwner  map[string]map[User]*note // the same, by owner on ring
	openings []*Opening                // that wait for an acknowledgement
	counters [1024]uint64              // 101s by user, folded: see Answer.Openings

	// questions under way that wait for somebody
	questions []*Question
	held      int
	anyDied   bool // since questions and openings were last looked through for those who wait for the dead
}

type phase uint8

const (
	joining phase = iota
	serving
	draining
	fenced // others may hold it dead: it does nothing any more
	left   // it has said goodbye: the same
)

// New returns a node that knows nobody and holds nothing. Start has it join.
func New(cfg Config) *Node {
	n := &Node{
		cfg:       cfg.withDefaults(),
		calls:     make(map[uint64]call),
		known:     make(map[string]*peer),
		dead:      make(map[string]burial),
		confirmed: never,
		readAt:    never,
		noted:     make(map[User]*note),
		byOwner:   make(map[string]map[User]*note),
	}
	n.regossip()
	return n
}

// Self returns the process that the node is.
func (n *Node) Self() Process { return n.cfg.Self.Process }

// Ring returns the ring by which the node decides.
func (n *Node) Ring() *hashring.Ring { return n.ring }

// IsServing tells whether it takes sessions: it has joined, and neither drains nor was fenced.
func (n *Node) IsServing() bool { return n.phase == serving }

// IsFenced tells whether others may hold it dead.
func (n *Node) IsFenced() bool { return n.phase == fenced }

// Known returns everybody that it knows and does not hold dead, itself left out, sorted.
func (n *Node) Known() []Peer {
	list := make([]Peer, 0, len(n.order))
	for _, p := range n.order {
		list = append(list, p.Peer)
	}
	return list
}

// Effects returns what is to be done since the last call of it.
func (n *Node) Effects() []Effect {
	out := n.out
	n.out = nil
	return out
}

func (n *Node) emit(e Effect) { n.out = append(n.out, e) }

// Start begins to join.
func (n *Node) Start(now Instant) {
	n.ringSince = now
	n.emit(Register{})
}

// Tick is called every 100 ms or so: all that becomes due by time is done here.
func (n *Node) Tick(now Instant) {
	if !n.wake(now) {
		return
	}
	n.forgetGrants(now)
	n.forgetNotes(now)
	n.greet(now)
	n.pollDue(now)
	n.watchSilent(now)
	n.openingsDue(now)
	n.holdsDue(now)
	n.releaseDead(now)
}

// wake comes first in every call: a process that was stalled must look whether others may hold it dead before it does any work.
func (n *Node) wake(now Instant) bool {
	if n.phase >= fenced {
		return false
	}
	if n.isCutOff(now) {
		n.fence("neither the registry nor half of the peers have answered for the lease")
		return false
	}
	return true
}

// isCutOff is the mirror image of a burial: whoever is buried by others must find this true by then. A member without peers has
// nobody who could bury it.
func (n *Node) isCutOff(now Instant) bool {
	return n.phase != joining && now.since(n.confirmed) > n.cfg.Lease && n.isLonely(now, n.cfg.Lease)
}

// isLonely tells whether fewer than half of the peers have answered lately. Those who are joining do not count where they answer: not
// everybody knows them yet, so whoever counts votes for a burial may not know that they are in touch with us.
func (n *Node) isLonely(now Instant, lately time.Duration) bool {
	inTouch, peers := 0, 0
	for _, p := range n.order {
		answered := now.since(p.answered) <= lately
		if answered && p.joining {
			continue
		}
		peers++
		if answered {
			inTouch++
		}
	}
	return inTouch*2 < peers
}

func (n *Node) fence(cause string) {
	if n.phase >= fenced {
		return
	}
	n.phase = fenced
	n.settleAll()
	for _, o := range n.openings {
		n.emit(Unopened{o})
	}
	n.openings = nil
	n.emit(Fenced{Cause: cause, Superseded: n.superseded})
}

// Drain takes the member off the ring: it opens nothing any more, and stays known until Leave. One that has not joined never will.
func (n *Node) Drain(now Instant) {
	if !n.wake(now) {
		return
	}
	if n.phase == joining {
		n.neverJoins = true
		return
	}
	n.phase = draining
	for _, o := range n.openings {
		n.emit(Unopened{o})
	}
	n.openings = nil
	n.rering(now)
}

// Leave says goodbye to everybody, once no session is left. Whoever hears it keeps no promise to this process any more: what is
// under way ends unsettled, and nothing follows but the goodbyes.
func (n *Node) Leave(now Instant) {
	if !n.wake(now) {
		return
	}
	for _, p := range n.order {
		n.send(now, p, Goodbye{})
	}
	n.phase = left
	n.settleAll()
}
