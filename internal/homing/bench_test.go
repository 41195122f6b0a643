package homing_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/selvedge/selvedge/hashring"
	"github.com/selvedge/selvedge/internal/homing"
)

// calm is a node with so many peers, all of whom have promised it something under the ring that all see.
type calm struct {
	node     *homing.Node
	peers    []homing.Peer
	ring     *hashring.Ring
	now      homing.Instant
	sequence uint64
	user     homing.User // of the node's
}

func newCalm(b *testing.B, peers int) *calm {
	b.Helper()
	peer := func(i int) homing.Peer {
		id := fmt.Sprintf("m%d", i)
		return homing.Peer{Process: homing.Process{Member: id, Incarnation: 1}, Addr: id}
	}
	c := &calm{node: homing.New(homing.Config{Self: peer(0), Users: nobody}), now: homing.Instant(time.Hour)}
	all := []homing.Registration{{Peer: peer(0), Passing: true}}
	members := []hashring.Member{{ID: "m0", Weight: 1}}
	for i := 1; i <= peers; i++ {
		c.peers = append(c.peers, peer(i))
		all = append(all, homing.Registration{Peer: peer(i), Passing: true})
		members = append(members, hashring.Member{ID: peer(i).Member, Weight: 1})
	}
	c.ring = sharedRing(members)
	c.node.Start(c.now)
	c.node.SetRing(c.now, c.ring, c.peers)
	c.node.Catalog(c.now, c.now, all)
	c.reply()
	c.poll()
	if !c.node.IsServing() {
		b.Fatal("it does not serve")
	}
	for u := uint64(1); c.ring.OwnerOfHash(u) != "m0"; u += 1 << 50 {
		c.user = homing.User(u + 1<<50)
	}
	return c
}

// reply answers what the node sends.
func (c *calm) reply() {
	for _, e := range c.node.Effects() {
		if send, ok := e.(homing.Send); ok {
			r := homing.Reply{Callee: homing.Callee{Peer: send.To}}
			if poll, ok := send.Request.(homing.Poll); ok {
				c.sequence++
				r.Promise = &homing.Promise{Sequence: c.sequence, Ring: c.ring, Unchanged: poll.Seen > 0}
			}
			c.node.Replied(c.now, send.Call, r)
		}
	}
}

// poll lets a second go by: the node polls all its peers, and they poll it.
func (c *calm) poll() {
	c.now += homing.Instant(time.Second)
	c.node.Tick(c.now)
	c.reply()
	for _, p := range c.peers {
		c.node.Handle(c.now, homing.Caller{Peer: p, Callee: homing.Process{Member: "m0"}, Gossip: c.node.Gossip()}, homing.Poll{Seen: c.sequence})
	}
}

// What the protocol costs a push at its home in calm, beside the delivery itself.
func BenchmarkPushAtHome(b *testing.B) {
	for _, peers := range []int{20, 100, 1000} {
		b.Run(fmt.Sprintf("peers=%d", peers), func(b *testing.B) {
			c := newCalm(b, peers)
			took := []string{"a session"}
			b.ReportAllocs()
			for b.Loop() {
				q := &homing.Question{User: c.user, Deadline: c.now + 1}
				c.node.Ask(c.now, q)
				c.node.Effects()
				c.node.Looked(c.now, q, homing.Answer{Sessions: took})
				if effects := c.node.Effects(); len(effects) != 1 || !q.Certain {
					b.Fatalf("%v, certain %v", effects, q.Certain)
				}
			}
		})
	}
}

// What a member does each second in calm: it polls all its peers and takes in their promises, and they poll it.
func BenchmarkPollRound(b *testing.B) {
	for _, peers := range []int{20, 100, 1000} {
		b.Run(fmt.Sprintf("peers=%d", peers), func(b *testing.B) {
			c := newCalm(b, peers)
			b.ReportAllocs()
			for b.Loop() {
				c.poll()
			}
		})
	}
}
