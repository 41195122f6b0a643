package homing_test

import (
	"slices"
	"time"

	"github.com/selvedge/selvedge/internal/homing"
)

// network carries calls between places, with delay and out of order. A place is a host with one listener.
type network struct {
	w         *world
	cuts      map[[2]string]time.Duration // from, to: nothing passes until then
	listeners map[string]*process
	gone      map[string]bool             // hosts that have vanished without a reset
	lag       func(message) time.Duration // in place of a random delay; longer than lost: it never arrives. nil: random
}

// message is a request or a reply on its way.
type message struct {
	from, to string
	what     string // Poll, Announce, Ask, ...
	isReply  bool
}

const lost = time.Hour

func (n *network) cut(from, to string, d time.Duration) {
	n.w.logf("cut %s -> %s for %v", from, to, d)
	n.cuts[[2]string{from, to}] = max(n.cuts[[2]string{from, to}], n.w.now+d)
}

func (n *network) isCut(from, to string) bool {
	return n.cuts[[2]string{from, to}] > n.w.now || n.cuts[[2]string{to, to}] > n.w.now || n.gone[from] || n.gone[to]
}

func (n *network) delay() time.Duration {
	if n.w.chance(2) {
		return n.w.some(200*time.Millisecond, 1500*time.Millisecond)
	}
	return n.w.some(200*time.Microsecond, 12*time.Millisecond)
}

// inbound is a call that waits for its answer.
type inbound struct {
	isOver bool
	reset  func()
}

// call has handle run in the process that listens at a place. done is called once, in the caller: with the reply, or with a failure.
// Where the way is cut, requests and replies get lost, or arrive once it is whole again, long after the caller has given up.
func (n *network) call(from *process, to, what string, timeout time.Duration, handle func(callee *process, reply func(any)),
	done func(reply any, f homing.Failure, ok bool),
) {
	in := &inbound{}
	finish := func(reply any, f homing.Failure, ok bool) {
		if !in.isOver {
			in.isOver = true
			done(reply, f, ok)
		}
	}
	back := func(reply any, f homing.Failure, ok bool) {
		n.carry(n.w.now, message{to, from.place, what, true}, func() { from.do(func() { finish(reply, f, ok) }) })
	}
	in.reset = func() {
		if !in.isOver {
			back(nil, homing.NoAnswer, false)
		}
	}
	from.after(timeout, func() { finish(nil, homing.NoAnswer, false) })
	n.carry(n.w.now, message{from.place, to, what, false}, func() {
		callee := n.listeners[to]
		if callee == nil {
			back(nil, homing.ConnectionRefused, false)
			return
		}
		if len(callee.inbound) > 32 {
			callee.inbound = slices.DeleteFunc(callee.inbound, func(o *inbound) bool { return o.isOver })
		}
		callee.inbound = append(callee.inbound, in)
		callee.do(func() { handle(callee, func(reply any) { back(reply, 0, true) }) })
	})
}

// carry has arrive called when a message is there.
func (n *network) carry(sent time.Duration, m message, arrive func()) {
	if n.lag != nil {
		if lag := n.lag(m); lag < lost {
			n.w.after(lag, arrive)
		}
		return
	}
	n.w.after(n.delay(), func() {
		switch {
		case !n.isCut(m.from, m.to):
			arrive()
		case n.gone[m.from] || n.gone[m.to] || n.w.now-sent > keepalive || n.w.chance(10):
		default:
			n.w.after(500*time.Millisecond, func() { n.carry(sent, m, arrive) })
		}
	})
}

// keepalive is after how long a broken connection is noticed at the latest.
const keepalive = 15 * time.Second

// tell has f run at to, as a byte stream carries it: later where the way is cut, and as a broken connection after the keepalive.
func (n *network) tell(from string, to *process, f func()) { n.tellSince(n.w.now, from, to, f) }

func (n *network) tellSince(start time.Duration, from string, to *process, f func()) {
	n.w.after(n.delay(), func() {
		if n.isCut(from, to.place) && n.w.now-start < keepalive {
			n.w.after(500*time.Millisecond, func() { n.tellSince(start, from, to, f) })
			return
		}
		to.do(f)
	})
}
