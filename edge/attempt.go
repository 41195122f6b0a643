package edge

import (
	"context"
	"net"
	"net/http"
	"time"
)

// attempt is an upgrade that has been let in, with a place of its own, up to the 101. It belongs to a handler of net/http, or to an
// opening on the reactor, which can pass it on to a handler at any point.
type attempt struct {
	x       *exchange
	request *http.Request
	claim   claim         // given back with the place
	wait    time.Duration // until its turn comes; 0: it has come
	accept  string        // the Sec-WebSocket-Accept that the 101 must carry
	header  http.Header   // the fields for the backend
	walk    walk

	// The try under way.
	trying bool
	member candidate
	began  time.Time
	conn   net.Conn  // nil until connected
	unsent []byte    // what the member has not been sent of the head
	until  time.Time // for the answer
}

// admit decides whether r may become a session, and whose: it must be an upgrade, there must be room, and a route, a user and a member, and
// no limit in the way. With a refusal nothing is held.
func (e *Edge) admit(r *http.Request, x *exchange) (a *attempt, no *refusal) {
	accept, no := checkUpgrade(r)
	if no != nil {
		return nil, no
	}
	if !x.live.gate.allowsOrigin(r.Header["Origin"]) {
		return nil, refuseOrigin
	}
	if no := e.sessions.take(); no != nil {
		return nil, no
	}
	var counts claim
	defer func() {
		if no != nil {
			e.sessions.give(counts)
		}
	}()
	if no := x.resolve(r); no != nil {
		return nil, no
	}
	svc := x.route.service
	snap := svc.view.Snapshot()
	if snap.Ring.Len() == 0 {
		return nil, refuseNoMember
	}
	if counts, no = e.sessions.claim(&x.live.gate, svc.name, x.user, x.head.Client); no != nil {
		return nil, no
	}
	wait, ok := e.pace.enter() // last, so that only those who are let in count
	if !ok {
		return nil, refusePaced
	}
	return &attempt{x: x, request: r, claim: counts, wait: wait, accept: accept, header: e.backendHeader(r, x), walk: svc.walk(snap, x.user)}, nil
}

// pause waits for d. It returns false if ctx is over before.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (a *attempt) service() *service { return a.x.route.service }

// next turns to the next member; false: nobody is left.
func (a *attempt) next() bool {
	a.member, a.trying = a.walk.next()
	a.began = time.Now()
	if a.trying {
		a.x.asks(a.member.ID, a.began)
	}
	return a.trying
}

// prepare writes the head for the member, into buf as far as that goes.
func (a *attempt) prepare(buf []byte) {
	a.service().vouch(a.header, a.member.ID)
	a.unsent = upgradeHead(buf[:0], a.request, withPassedOver(a.header, a.x, a.member))
}

// connected notes that the member can be sent the head, and has from now on to answer.
func (a *attempt) connected() { a.until = time.Now().Add(a.service().cfg.ResponseTimeout) }

// answered notes that the member is well.
func (a *attempt) answered() {
	a.x.hears()
	a.service().outliers.answered(a.member.Member, a.began)
}

// failed notes that the member refused the connection or did not answer in time.
func (a *attempt) failed(err error) { a.service().outliers.failed(a.member.Member, a.began, err) }

// over notes that the member is not the one; what there was of a connection to it has been closed.
func (a *attempt) over() { a.trying, a.conn, a.unsent = false, nil, nil }
