package homing

import "time"

const (
	buryMargin  = 3 * time.Second // beyond the lease: by then a silent process has fenced itself
	reportFresh = time.Second     // how old a peer's report may be that another is silent
	silentAtAll = time.Second     // shorter silences are not reported
	doubtAfter  = 2               // parts of the lease after which silence sends one to the registry
)

// silence is who has not been heard of for how long. Who is joining has no say: those who are silent to it may not even know it.
func (n *Node) silence(now Instant) map[string]time.Duration {
	var out map[string]time.Duration
	if n.phase == joining {
		return nil
	}
	for _, p := range n.order {
		if silent := now.since(p.contact); silent > silentAtAll {
			if out == nil {
				out = make(map[string]time.Duration)
			}
			out[p.Member] = silent
		}
	}
	return out
}

// watchSilent asks the registry about those who have fallen silent, and about this process itself where it may be the one who is cut
// off; and it buries whoever must have fenced himself by now.
func (n *Node) watchSilent(now Instant) {
	doubt := n.cfg.Lease / doubtAfter
	n.isWatching = n.isLonely(now, doubt)
	for _, p := range n.order {
		n.isWatching = n.isWatching || now.since(p.contact) > doubt
	}
	alone := len(n.order) == 0 && now.since(n.confirmed) > doubt
	if (n.isWatching || alone) && now >= n.nextCatalog {
		n.nextCatalog = now.plus(catalogEvery)
		n.emit(ReadCatalog{})
	}
	if !n.isWatching {
		return
	}
	for _, p := range append([]*peer(nil), n.order...) {
		if n.maybeBuried(now, p) {
			n.kill(now, p.Process, Silent)
		}
	}
}

// maybeBuried tells whether p is silent to more than half of its peers and away from the registry for so long that it is dead or
// has fenced itself; see isCutOff. What was read of the registry must be fresh: p may have come back to it since, and would then be
// right to go on.
func (n *Node) maybeBuried(now Instant, p *peer) bool {
	limit := n.cfg.Lease + buryMargin
	if now.since(p.contact) < limit || p.absentSince == never || now.since(p.absentSince) < limit ||
		now.since(n.readAt) > buryMargin || n.phase == joining {
		return false
	}
	silentTo := 1
	for _, q := range n.order {
		if q != p && now.since(q.silentAt) < reportFresh && q.silent[p.Member] >= limit {
			silentTo++
		}
	}
	peersOfIt := len(n.order) // we stand in its place
	return silentTo*2 > peersOfIt
}

// Bury holds a member dead by an operator's word, whatever incarnation of it is known. It reports whether one was.
func (n *Node) Bury(now Instant, member string) bool {
	p := n.known[member]
	if !n.wake(now) || p == nil {
		return false
	}
	n.kill(now, p.Process, ByHand)
	n.finishJoin(now)
	n.releaseDead(now)
	return true
}
