package admin

import (
	"sync"
	"time"

	"github.com/selvedge/selvedge/hashring"
	"github.com/selvedge/selvedge/internal/discovery"
)

const (
	rememberChanges  = 64
	changesShown     = 24          // of them to a page that opens
	transfersShown   = 12          // of one change, the largest; the others are added up
	summariseAtLeast = time.Second // from one summary to the next: it takes some 4 ms for a ring of 100 members
)

// Changes keeps what the last changes of a ring moved from whom to whom. A change is summarised at once; those that follow within a
// second make up one more, so that a member that flaps costs this process little and the operator few lines.
type Changes struct {
	journal *Journal[Change]
	own     func(member string) int // sessions of this process; nil: it is not known

	mu      sync.Mutex
	from    *discovery.Snapshot // the ring before the changes that wait to be summarised; nil: none do
	to      *discovery.Snapshot
	rings   int            // changes that wait
	held    map[string]int // sessions when the first of them came, by member
	began   time.Time      // when that was
	next    time.Time      // no summary before
	waiting bool           // a timer runs
}

// Change is one step, or several in quick succession, from one ring to another.
type Change struct {
	Rings    int        `json:"rings"` // how many changes this is
	Members  int        `json:"members"`
	Digest   string     `json:"digest"`
	Moved    float64    `json:"moved"` // share of users with another owner, 0 to 1
	Steps    []Step     `json:"steps"`
	Moves    []Transfer `json:"moves"`
	Others   int        `json:"others,omitempty"`       // transfers that are left out of Moves
	OthersIs float64    `json:"others_share,omitempty"` // their share
}

// Step is what happened to one member.
type Step struct {
	Member string `json:"member"`
	What   string `json:"what"` // joined, left or weight
	Why    string `json:"why,omitempty"`
}

// Transfer is a share of all users that went from one member to another; "" is nobody.
type Transfer struct {
	From  string  `json:"from"`
	To    string  `json:"to"`
	Share float64 `json:"share"`
	// Sessions is about how many of this process's sessions that are: those of From, by the part of its share that went. -1: not known.
	Sessions int `json:"sessions"`
}

// NewChanges keeps the changes of view's ring from now on; own tells how many sessions this process has with a member.
func NewChanges(view *discovery.View, own func(member string) int) *Changes {
	c := &Changes{journal: NewJournal[Change](rememberChanges), own: own}
	view.Subscribe(c.changed)
	return c
}

// After returns the newest changes with a number above number, oldest first.
func (c *Changes) After(number uint64, most int) []Entry[Change] {
	return c.journal.After(number, most)
}

// changed runs on the view's goroutine.
func (c *Changes) changed(old, now *discovery.Snapshot) {
	if old.Ring == now.Ring {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.from == nil {
		c.from, c.began, c.held = old, time.Now(), nil
		if c.own != nil {
			c.held = make(map[string]int)
			for _, m := range old.Ring.Members() {
				c.held[m.ID] = c.own(m.ID)
			}
		}
	}
	c.to = now
	c.rings++
	if !c.waiting {
		c.waiting = true
		time.AfterFunc(time.Until(c.next), c.summarise)
	}
}

// summarise runs on a goroutine of its own: a large ring takes a while, and the view must not wait.
func (c *Changes) summarise() {
	c.mu.Lock()
	from, to, rings, held, began := c.from, c.to, c.rings, c.held, c.began
	c.from, c.to, c.rings, c.waiting = nil, nil, 0, false
	c.next = time.Now().Add(summariseAtLeast)
	c.mu.Unlock()
	if from.Ring.Digest() == to.Ring.Digest() && rings > 1 {
		return // there and back within a second: nobody has moved
	}
	change := summary(from, to, held)
	change.Rings = rings
	c.journal.AddAt(began, change)
}

// hashSpace is the number of hashes.
const hashSpace = 1 << 64

// summary tells what lies between two rings. held has the sessions with each member of the first; nil: not known.
func summary(from, to *discovery.Snapshot, held map[string]int) Change {
	type pair struct{ from, to string }
	shares := make(map[pair]float64)
	change := Change{Members: to.Ring.Len(), Digest: to.Ring.Digest(), Steps: steps(from, to)}
	for _, m := range hashring.Diff(from.Ring, to.Ring) {
		shares[pair{m.From, m.To}] += (float64(m.End-m.Start) + 1) / hashSpace
	}
	for p, share := range shares {
		t := Transfer{From: p.from, To: p.to, Share: share, Sessions: -1}
		if had, known := held[p.from]; known {
			t.Sessions = int(float64(had)*share/from.Ring.Share(p.from) + 0.5)
		}
		change.Moves = append(change.Moves, t)
		change.Moved += share
	}
	sortTransfers(change.Moves)
	if n := len(change.Moves); n > transfersShown {
		for _, t := range change.Moves[transfersShown:] {
			change.OthersIs += t.Share
		}
		change.Others, change.Moves = n-transfersShown, change.Moves[:transfersShown]
	}
	return change
}
