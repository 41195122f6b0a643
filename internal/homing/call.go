package homing

// call is a request under way.
type call struct {
	to      Process
	addr    string
	sent    Instant
	request Request
}

func (n *Node) send(now Instant, p *peer, r Request) {
	n.last++
	n.calls[n.last] = call{p.Process, p.Addr, now, r}
	timeout := n.cfg.CallTimeout
	if _, announcing := r.(Announce); announcing {
		timeout = n.cfg.OpenTimeout / 3 // so that it can be tried again before the client has waited too long
	}
	n.emit(Send{Call: n.last, To: p.Peer, Caller: n.caller(p.Process), Request: r, Timeout: timeout})
}

// Handle answers a request of a peer. ok is false where there must be no reply; see Admit.
func (n *Node) Handle(now Instant, c Caller, r Request) (reply Reply, ok bool) {
	callee, ok := n.Admit(now, c)
	if !ok {
		return Reply{}, false
	}
	reply.Callee = callee
	p := n.alive(c.Peer.Process)
	if callee.Refusal != Accepted && callee.Refusal != NotJoined || p == nil { // who is joining can hear and promise, too
		return reply, true
	}
	switch r := r.(type) {
	case Hello:
		p.nextPoll = now // it covers nothing before it has promised
	case Poll:
		reply.Promise = n.promise(now, p, r.Seen)
	case Announce:
		n.announced(p, r)
	case Goodbye:
		n.kill(now, p.Process, SaidGoodbye)
		n.releaseDead(now)
	default:
		reply.Callee.Refusal = Unknown
	}
	return reply, true
}

// Replied takes in the reply to a call.
func (n *Node) Replied(now Instant, id uint64, r Reply) {
	c, known := n.calls[id]
	delete(n.calls, id)
	if !known || !n.wake(now) {
		return
	}
	n.callEnded(c)
	p := n.heard(now, c.sent, c.to, r.Callee)
	if n.phase >= fenced {
		return
	}
	if p != nil && p.Process == c.to {
		switch request := c.request.(type) {
		case Poll:
			if r.Promise != nil {
				n.promised(now, c.sent, p, r.Promise)
			}
		case Announce:
			n.acknowledged(now, p.Process, request.Users)
		}
	}
	if _, hello := c.request.(Hello); hello && p != nil {
		p.greeted = true
	}
	n.announceQueued(now)
	n.finishJoin(now)
	n.releaseDead(now)
}

// Failed takes in that a call brought no reply.
func (n *Node) Failed(now Instant, id uint64, f Failure) {
	c, known := n.calls[id]
	delete(n.calls, id)
	if !known || !n.wake(now) {
		return
	}
	n.callEnded(c)
	if f == ConnectionRefused && n.cfg.TrustRefused {
		n.kill(now, c.to, Refused)
	}
	if _, announced := c.request.(Announce); announced { // a client waits: is the peer gone?
		n.Suspect(now, c.addr)
	}
	n.finishJoin(now)
	n.releaseDead(now)
}

func (n *Node) callEnded(c call) {
	p := n.alive(c.to)
	if p == nil {
		return
	}
	switch c.request.(type) {
	case Poll:
		p.polling = false
	case Announce:
		p.announcing = false
	}
}
