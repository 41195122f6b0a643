package backend

import (
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/selvedge/selvedge/hashring"
	"github.com/selvedge/selvedge/internal/homing"
	"github.com/selvedge/selvedge/internal/peerv1"
)

// wireVersion is the version of the contract between members that this release speaks.
const wireVersion = 1

func processToWire(p homing.Process) *peerv1.Process {
	return &peerv1.Process{Member: p.Member, Incarnation: p.Incarnation}
}

func processFromWire(p *peerv1.Process) homing.Process {
	return homing.Process{Member: p.GetMember(), Incarnation: p.GetIncarnation()}
}

func peerToWire(p homing.Peer) *peerv1.Process {
	return &peerv1.Process{Member: p.Member, Incarnation: p.Incarnation, Addr: p.Addr}
}

func peerFromWire(p *peerv1.Process) homing.Peer {
	return homing.Peer{Process: processFromWire(p), Addr: p.GetAddr()}
}

func callerToWire(c homing.Caller) *peerv1.Caller {
	return &peerv1.Caller{
		Version: wireVersion, Process: peerToWire(c.Peer), Callee: processToWire(c.Callee), Gossip: c.Gossip,
		SentMs: uint64(time.Duration(bootClock()).Milliseconds()),
	}
}

func callerFromWire(c *peerv1.Caller) homing.Caller {
	return homing.Caller{Peer: peerFromWire(c.GetProcess()), Callee: processFromWire(c.GetCallee()), Gossip: c.GetGossip()}
}

func calleeToWire(c homing.Callee) *peerv1.Callee {
	w := &peerv1.Callee{Version: wireVersion, Process: peerToWire(c.Peer), Draining: c.Draining, Refusal: peerv1.Refusal(c.Refusal)}
	for _, p := range c.Known {
		w.Known = append(w.Known, peerToWire(p))
	}
	for _, p := range c.Dead {
		w.Dead = append(w.Dead, processToWire(p))
	}
	return w
}

func calleeFromWire(w *peerv1.Callee) homing.Callee {
	c := homing.Callee{Peer: peerFromWire(w.GetProcess()), Draining: w.GetDraining(), Refusal: homing.Refusal(w.GetRefusal())}
	if w.GetRefusal() > peerv1.Refusal_UNKNOWN_REQUEST || w.GetProcess() == nil {
		c.Refusal = homing.Unknown // of a later release
	}
	for _, p := range w.GetKnown() {
		c.Known = append(c.Known, peerFromWire(p))
	}
	for _, p := range w.GetDead() {
		c.Dead = append(c.Dead, processFromWire(p))
	}
	return c
}

func usersToWire(users []homing.User) []uint64 {
	out := make([]uint64, len(users))
	for i, u := range users {
		out[i] = uint64(u)
	}
	return out
}

func usersFromWire(users []uint64) []homing.User {
	out := make([]homing.User, len(users))
	for i, u := range users {
		out[i] = homing.User(u)
	}
	return out
}

// promiseToWire leaves the ring's members out where the caller has that ring.
func promiseToWire(p *homing.Promise, has string) *peerv1.PollReply {
	w := &peerv1.PollReply{Sequence: p.Sequence, RingDigest: p.Ring.Digest(), Unchanged: p.Unchanged, Users: usersToWire(p.Users)}
	if w.RingDigest != has {
		for _, m := range p.Ring.Members() {
			w.Members = append(w.Members, &peerv1.RingMember{Member: m.ID, Weight: uint32(m.Weight)})
		}
	}
	if len(p.Silent) > 0 {
		w.SilentMs = make(map[string]uint32, len(p.Silent))
		for member, silent := range p.Silent {
			w.SilentMs[member] = uint32(min(silent.Milliseconds(), 1<<31))
		}
	}
	return w
}

var errOtherRing = errors.New("its members make another ring than it says: do all members have the same release and ring secret?")

func (h *home) promiseFromWire(w *peerv1.PollReply) (*homing.Promise, error) {
	ring, err := h.ringOf(w)
	if err != nil {
		return nil, err
	}
	p := &homing.Promise{Sequence: w.Sequence, Ring: ring, Unchanged: w.Unchanged, Users: usersFromWire(w.Users)}
	if len(w.SilentMs) > 0 {
		p.Silent = make(map[string]time.Duration, len(w.SilentMs))
		for member, silent := range w.SilentMs {
			p.Silent[member] = time.Duration(silent) * time.Millisecond
		}
	}
	return p, nil
}

// ringOf finds or makes the ring that a promise names.
func (h *home) ringOf(w *peerv1.PollReply) (*hashring.Ring, error) {
	if ring, known := h.rings.Get(w.RingDigest); known {
		return ring, nil
	}
	members := make([]hashring.Member, 0, len(w.Members))
	for _, m := range w.Members {
		members = append(members, hashring.Member{ID: m.Member, Weight: int(m.Weight)})
	}
	ring, err := hashring.New(members, h.b.cfg.Membership.RingOptions(h.b.cfg.Service)...)
	if err != nil {
		return nil, err
	}
	if ring.Digest() != w.RingDigest {
		return nil, fmt.Errorf("digest %s of %d members, want %s: %w", ring.Digest(), len(members), w.RingDigest, errOtherRing)
	}
	h.rings.Add(w.RingDigest, ring)
	return ring, nil
}

// ringDigest is of the ring that n decides by: a promise under the same one need not list its members.
func (h *home) ringDigest(n *homing.Node) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	ring := n.Ring()
	h.rings.Add(ring.Digest(), ring)
	return ring.Digest()
}

func logPeer(p homing.Process, err error) []zap.Field {
	return []zap.Field{zap.String("peer", p.Member), zap.Uint64("incarnation", p.Incarnation), zap.Error(err)}
}
