package backend

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	lru "github.com/hashicorp/golang-lru/v2"
	"go.uber.org/zap"

	"github.com/selvedge/selvedge/hashring"
	"github.com/selvedge/selvedge/internal/config"
	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/homing"
	"github.com/selvedge/selvedge/internal/peerlink"
)

const (
	tickEvery     = 100 * time.Millisecond
	stallAfter    = 2 * time.Second // without a tick: what peers sent meanwhile and nobody read is out of date
	readTimeout   = 2 * time.Second // of the registry
	readAgain     = 50 * time.Millisecond
	rememberRings = 32

	waitingSaidEvery = 5 * time.Second
)

// home is this process's part in the ownership protocol. It makes one call to the node at a time and carries out its effects; what
// takes time is done by goroutines, which come back with the outcome.
type home struct {
	b        *Backend
	links    *peerlink.Links
	handler  *peerlink.Handler
	reader   discovery.Reader // the registry, where it can be asked
	ages     ages             // of what comes from the others
	shown    atomic.Bool      // the registry named this process when it was read last
	rings    *lru.Cache[string, *hashring.Ring]
	tracked  sync.WaitGroup // goroutines
	goodbyes sync.WaitGroup // those of them that say goodbye

	mu       sync.Mutex
	node     *homing.Node
	peer     homing.Peer // the node's own
	ctx      context.Context
	openings map[*homing.Opening]chan<- bool
	reading  bool
	ringAt   time.Time // when the node's ring changed last
	left     bool      // no new node is made any more
	closed   bool      // nothing is begun any more
}

func newHome(b *Backend, source discovery.Source) (*home, error) {
	h := &home{b: b, openings: make(map[*homing.Opening]chan<- bool)}
	secure, err := b.callerTLS()
	if err != nil {
		return nil, config.Under("backend.rpc.tls", err)
	}
	h.links = peerlink.New(peerlink.Config{Token: b.cfg.PeerToken, TLS: secure, Logger: b.log, OnLost: h.lost})
	h.reader, _ = source.(discovery.Reader)
	h.rings, err = lru.New[string, *hashring.Ring](rememberRings)
	h.node = h.newNode() // joins nobody, and knows that: for calls before Run
	return h, err
}

// rpcHandler is what the other members reach.
func (h *home) rpcHandler() (path string, handler http.Handler) {
	path, h.handler = peerlink.NewHandler(h.serve, connect.WithReadMaxBytes(maxPeerBytes))
	return path, h.handler
}

const maxPeerBytes = 64 << 20 // of a batch of requests: one that lists the users of a member that drains is the largest

// start makes the first node, under an address that others can call, once the registry has said what it knows.
func (h *home) start(ctx context.Context) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ctx = ctx
	h.renew()
}

// renew makes a new incarnation join, a later one than any before, even where the host's clock has been set back. The caller holds mu.
func (h *home) renew() {
	registered, _ := h.b.view.Snapshot().Member(h.b.cfg.ID)
	h.peer = homing.Peer{
		Process: homing.Process{
			Member:      h.b.cfg.ID,
			Incarnation: max(uint64(time.Now().UnixNano()), h.peer.Incarnation+1, registered.Incarnation+1),
		},
		Addr: h.b.advertised(h.b.rpcAddr, false),
	}
	h.node = h.newNode()
	h.node.Start(bootClock())
	h.takeSnapshot(h.b.view.Snapshot())
	h.carryOut(h.node)
}

func (h *home) newNode() *homing.Node {
	return homing.New(homing.Config{
		Self:         h.peer,
		Users:        h.b.table.users,
		Settle:       h.b.cfg.Move.Settle,
		MoveGrace:    h.b.cfg.Move.Grace,
		TrustRefused: !h.b.cfg.DistrustRefused,
	})
}

// do calls the node that is in force.
func (h *home) do(f func(n *homing.Node, now homing.Instant)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(h.node, bootClock())
	h.carryOut(h.node)
}

// tell calls n with the outcome of something that it asked for, be n in force or not.
func (h *home) tell(n *homing.Node, f func(now homing.Instant)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(bootClock())
	h.carryOut(n)
}

// carryOut does what n asks for. The caller holds mu, so nothing here waits.
func (h *home) carryOut(n *homing.Node) {
	for _, effect := range n.Effects() {
		switch e := effect.(type) {
		case homing.Register:
			h.b.announceState(discovery.Joining, h.peer.Incarnation)
			h.spawn(func() { h.awaitRegistered(n) })
		case homing.ReadCatalog:
			h.readRegistry(n)
		case homing.Joined:
			h.b.announceState(discovery.Serving, h.peer.Incarnation)
			h.b.joined()
		case homing.Fenced:
			h.spawn(func() { h.fenced(n, e) })
		case homing.Send:
			if _, last := e.Request.(homing.Goodbye); last {
				h.goodbyes.Go(func() { h.send(n, e) })
			} else {
				h.spawn(func() { h.send(n, e) })
			}
		case homing.Opened:
			h.opened(e.Opening, true)
		case homing.Unopened:
			h.opened(e.Opening, false)
		case homing.Look:
			e.Question.Context.(*errand).mustLook()
		case homing.Ask:
			e.Question.Context.(*errand).lent = true
			h.spawn(func() { h.ask(n, e) })
		case homing.Settled:
			e.Question.Context.(*errand).isSettled()
		case homing.Died:
			h.b.metrics.deaths.WithLabelValues(e.Cause.String()).Inc()
			h.b.log.Info("a process is gone", zap.String("peer", e.Process.Member), zap.Uint64("incarnation", e.Process.Incarnation),
				zap.Stringer("proof", e.Cause))
		case homing.RingChanged:
			h.ringAt = time.Now()
			h.b.wakeMover()
		}
	}
}

// spawn runs f in a goroutine that close waits for. The caller holds mu.
func (h *home) spawn(f func()) {
	if !h.closed {
		h.tracked.Go(f)
	}
}

// run keeps the node's time until ctx ends.
func (h *home) run(ctx context.Context) {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	last := bootClock()
	var waited time.Duration
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := bootClock()
		if pause := time.Duration(now - last); pause > stallAfter {
			h.b.log.Warn("this process stood still", zap.Duration("for", pause))
			h.b.metrics.stalls.Inc()
			h.handler.Reset()
			h.links.Reset()
		}
		last = now
		var waiting []homing.Peer
		h.do(func(n *homing.Node, now homing.Instant) {
			n.Tick(now)
			waiting = n.Waiting()
		})
		if waited += tickEvery; waited > waitingSaidEvery {
			waited = 0
			h.sayWaiting(waiting)
		}
	}
}

// sayWaiting tells the operator why this process does not join.
func (h *home) sayWaiting(waiting []homing.Peer) {
	switch {
	case len(waiting) > 0:
		h.b.log.Warn("cannot join before these members answer, are gone from their hosts, or are buried (selvedge ring bury MEMBER)",
			zap.String("members", names(waiting)))
	case !h.shown.Load():
		h.b.log.Warn("cannot join before the registry answers and names this member; a list or file must have it", zap.String("service", h.b.cfg.Service))
	}
}

func names(peers []homing.Peer) string {
	var list []string
	for _, p := range peers {
		list = append(list, p.Member+" at "+p.Addr)
	}
	return strings.Join(list, ", ")
}

// snapshotChanged hands the registry's view on.
func (h *home) snapshotChanged(s *discovery.Snapshot) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.takeSnapshot(s)
	h.carryOut(h.node)
}

func (h *home) takeSnapshot(s *discovery.Snapshot) {
	if s.Ring.Len() > 0 {
		h.rings.Add(s.Ring.Digest(), s.Ring)
	}
	var registered []homing.Peer
	for _, m := range s.Members {
		if p, takesPart := peerOf(m); takesPart {
			registered = append(registered, p)
		}
	}
	h.node.SetRing(bootClock(), s.Ring, registered)
}

// peerOf is a member as the protocol knows it. Without an RPC listener it takes no part.
func peerOf(m discovery.Member) (p homing.Peer, takesPart bool) {
	return homing.Peer{Process: homing.Process{Member: m.ID, Incarnation: m.Incarnation}, Addr: m.RPCAddr}, m.RPCAddr != ""
}

// awaitRegistered reads the registry until it shows this process, for the node to learn whom to greet.
func (h *home) awaitRegistered(n *homing.Node) {
	for range int(time.Second / readAgain) {
		if h.readOnce(n) {
			return
		}
		select {
		case <-time.After(readAgain):
		case <-h.ctx.Done():
			return
		}
	} // the node itself goes on asking, once a second
}

// readRegistry reads the registry, one read at a time. The caller holds mu.
func (h *home) readRegistry(n *homing.Node) {
	if h.reading {
		return
	}
	h.reading = true
	h.spawn(func() {
		h.readOnce(n)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.reading = false
	})
}

// readOnce reports whether the registry shows this process.
func (h *home) readOnce(n *homing.Node) (shown bool) {
	sent := bootClock()
	members, err := h.readMembers()
	if err != nil {
		h.b.log.Debug("the registry cannot be read", zap.Error(err))
		return false
	}
	var all []homing.Registration
	for _, m := range members {
		p, takesPart := peerOf(m)
		if !takesPart {
			continue
		}
		all = append(all, homing.Registration{Peer: p, Passing: m.Health != discovery.Critical})
		shown = shown || p.Process == n.Self() || p.Process == homing.Process{Member: n.Self().Member}
	}
	h.shown.Store(shown)
	h.tell(n, func(now homing.Instant) { n.Catalog(now, sent, all) })
	return shown
}

var errNoReader = errors.New("this registry cannot be asked")

func (h *home) readMembers() ([]discovery.Member, error) {
	if h.reader == nil {
		return nil, errNoReader
	}
	ctx, cancel := context.WithTimeout(h.ctx, readTimeout)
	defer cancel()
	return h.reader.Read(ctx, h.b.cfg.Service)
}

// lost is told that a stream to addr broke: whether the process is gone shows at the next call.
func (h *home) lost(addr string) {
	h.do(func(n *homing.Node, now homing.Instant) { n.Suspect(now, addr) })
}

// fenced is the end of an incarnation that others may hold dead: its sessions are closed, and the next one joins.
func (h *home) fenced(n *homing.Node, e homing.Fenced) {
	h.b.metrics.fences.Inc()
	h.b.log.Warn("this process may be held dead by others: all its sessions are closed and it joins anew", zap.String("why", e.Cause),
		zap.Int("sessions", h.b.table.len()))
	for _, s := range h.b.table.all() {
		s.beginClose(Restart, 0, "")
	}
	if e.Superseded {
		h.b.fail(ErrSuperseded)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.node == n && !h.left {
		h.renew()
	}
}

// drain leaves the ring: no session is opened any more.
func (h *home) drain() {
	h.do(func(n *homing.Node, now homing.Instant) {
		h.left = true
		n.Drain(now)
		h.b.announceState(discovery.Draining, h.peer.Incarnation)
	})
}

const goodbyeTime = 500 * time.Millisecond // for the others to hear that this process holds nothing any more

// leave says goodbye, and waits a moment until it is heard.
func (h *home) leave() {
	h.do(func(n *homing.Node, now homing.Instant) { h.left = true; n.Leave(now) })
	heard := make(chan struct{})
	go func() { h.goodbyes.Wait(); close(heard) }()
	limit := time.NewTimer(goodbyeTime)
	defer limit.Stop()
	select {
	case <-heard:
	case <-limit.C:
	}
}

// close ends the links; nothing of the home runs after it.
func (h *home) close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.links.Close()
	h.goodbyes.Wait()
	h.tracked.Wait()
}

// register puts a session into the table and asks for its 101: granted says what became of it. A nil channel refuses it at once.
// Either way unregister is due.
func (h *home) register(s *Session) (opening *homing.Opening, granted <-chan bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.b.table.add(s)
	opening = h.node.Open(bootClock(), s.hash)
	if opening == nil {
		return nil, nil
	}
	answer := make(chan bool, 1)
	h.openings[opening] = answer
	h.carryOut(h.node)
	return opening, answer
}

// cancel says that nobody waits for an opening any more; unregister is still due.
func (h *home) cancel(o *homing.Opening) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.node.Cancel(o)
	delete(h.openings, o)
}

func (h *home) opened(o *homing.Opening, granted bool) {
	if answer, waits := h.openings[o]; waits {
		delete(h.openings, o)
		answer <- granted
	}
}

// unregister takes a session out of the table, whose client was told to connect to its home if moved.
func (h *home) unregister(s *Session, moved bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.b.table.remove(s) {
		h.node.Closed(bootClock(), s.hash, moved)
		h.carryOut(h.node)
	}
}

// known returns the peers.
func (h *home) known() (peers []homing.Peer) {
	h.do(func(n *homing.Node, _ homing.Instant) { peers = n.Known() })
	return peers
}

// bury holds a member dead by an operator's word.
func (h *home) bury(member string) (known bool) {
	h.do(func(n *homing.Node, now homing.Instant) { known = n.Bury(now, member) })
	return known
}

// isServing tells whether this process takes sessions.
func (h *home) isServing() (serving bool) {
	h.do(func(n *homing.Node, _ homing.Instant) { serving = n.IsServing() })
	return serving
}
