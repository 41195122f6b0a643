package edge

import (
	"bytes"
	"errors"
	"net/http"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"go.uber.org/zap"

	"github.com/selvedge/selvedge/internal/httphead"
	"github.com/selvedge/selvedge/internal/reactor"
	"github.com/selvedge/selvedge/internal/tunnel"
)

// stage is where an opening is. It only goes down the list, but for dialling, which comes again with each member that refuses.
type stage uint8

const (
	arriving stage = iota // the client's head is not whole
	pacing                // waits for its turn: more come than are let in at a time
	dialling              // a connection to a member is under way
	asking                // the member has been sent the head, or as much of it as it takes, and has not answered
	shedding              // turned away instead: the answer has been written, and the client is waited for to close
	over                  // joined, handed over or closed; nothing is held any more
)

// opening is a connection on the reactor on its way to become a session: the fast path of [Edge.upgrade]. It goes through the stages in
// the order of this file, and decides with the same functions. Whatever is not plain is handed over to net/http at once, with all that
// has been found out: a head that is odd or asks for something else, a request to refuse, an answer other than a proper 101. So no
// answer but the 101, and that to clients who are too many, is written here, and none is parsed here: heads are looked at where they are,
// in the kernel's buffer, and net/http's parsers read them.
type opening struct {
	lane   *lane
	client socket
	peer   netip.AddrPort
	stage  stage
	queued bool           // among those of the lane that wait
	seen   reactor.Events // of the client, while its head arrives
	looks  int            // at a head that was not whole
	timer  *reactor.Timer // of the stage

	// From dialling on.
	head    []byte // the client's, as it came
	attempt *attempt
	member  socket // fd is -1 where there is none
}

// socket is a descriptor on the loop.
type socket struct {
	fd     int
	reg    reactor.Registration
	unread bool // there may be bytes that no event will tell of again
}

func (s socket) leave() int {
	s.reg.Unregister()
	return s.fd
}

func (s socket) close() { reactor.Close(s.leave()) }

// mostLooks is how often a head that comes in pieces is looked at. Then it is net/http's, which keeps what it has read.
const mostLooks = 4

// The two ends' handlers.
type (
	clientSide opening
	memberSide opening
)

func (c *clientSide) Ready(ev reactor.Events) {
	switch o := (*opening)(c); o.stage {
	case arriving:
		o.seen |= ev
		if ev&reactor.Readable != 0 && o.lane.admits(o) {
			o.read()
		}
	case pacing, dialling, asking:
		o.client.unread = o.client.unread || ev&reactor.Readable != 0
		o.watch(ev)
	case shedding:
		o.sink(ev)
	}
}

func (m *memberSide) Ready(ev reactor.Events) {
	o := (*opening)(m)
	if o.stage == dialling && ev&reactor.Writable != 0 {
		o.connected()
	}
	if o.stage == asking && ev&reactor.Writable != 0 {
		o.send()
	}
	if o.stage == asking && ev&reactor.Readable != 0 {
		o.answer(ev)
	}
}

// begin is arriving: the head is awaited, for as long as net/http would.
func (o *opening) begin() {
	o.within(o.lane.intake.edge.headTimeout, o.late)
}

// late lets go of who has not sent a head in time, with a FIN: what there is of one is read, since unread bytes would make it a reset.
func (o *opening) late() {
	_, _ = reactor.Read(o.client.fd, o.lane.loop.Scratch())
	o.drop()
}

func (o *opening) read() {
	e, loop := o.lane.intake.edge, o.lane.loop
	buf := loop.Scratch()
	buf = buf[:min(len(buf), e.live.Load().headerBytes)]
	n, err := reactor.Peek(o.client.fd, buf)
	switch {
	case errors.Is(err, reactor.ErrAgain):
		o.client.reg.Drained(reactor.Readable)
		return
	case err != nil: // gone before it had said anything
		o.drop()
		return
	}
	size, is := httphead.Request(buf[:n])
	if is == httphead.Partial && n < len(buf) && o.wait(o.client, o.seen) {
		return
	}
	if is != httphead.Plain {
		o.handOver()
		return
	}
	r, err := o.lane.request(buf[:size])
	if err != nil {
		o.handOver()
		return
	}
	r.RemoteAddr = o.peer.String()
	x := e.begin(r)
	if !x.upgrade || headBytes(r) > x.live.headerBytes {
		o.handOver()
		return
	}
	a, no := e.admit(r, x)
	switch {
	case no == refusePaced, no == refuseFull:
		o.shed(x, no)
		return
	case no != nil: // net/http finds the same, and answers
		o.handOver()
		return
	}
	o.client.unread = n > size || n == len(buf) || o.seen&reactor.Ending != 0
	o.attempt, o.head = a, make([]byte, size)
	if n, err := reactor.Read(o.client.fd, o.head); n < size || err != nil {
		o.gone() // reset just now
		return
	}
	if a.wait > 0 {
		o.pace()
	} else {
		o.dial()
	}
	o.watch(o.seen)
}

// pace waits for the turn to be let in. The loop's own timers are in step of 50 ms, and would let all in together whose turns come in one.
func (o *opening) pace() {
	o.timer.Stop()
	o.stage = pacing
	time.AfterFunc(o.attempt.wait, func() {
		o.lane.loop.Post(func() {
			if o.stage != pacing { // it has left
				return
			}
			if o.attempt.wait = 0; o.lane.admits(o) {
				o.dial()
			}
		})
	})
}

// wait tells whether more of a head is to be awaited after ev.
func (o *opening) wait(s socket, ev reactor.Events) bool {
	if o.looks++; o.looks > mostLooks || ev&(reactor.Ending|reactor.Hangup) != 0 {
		return false
	}
	s.reg.Drained(reactor.Readable)
	return true
}

// watch looks whether the client has left while it waits, or a member is asked. Bytes that it has sent stay where they are, for the tunnel.
func (o *opening) watch(ev reactor.Events) {
	if ev&(reactor.Ending|reactor.Hangup) == 0 || o.stage < pacing || o.stage > asking {
		return
	}
	_, err := reactor.Peek(o.client.fd, o.lane.loop.Scratch()[:1])
	switch {
	case ev&reactor.Hangup != 0, err != nil && !errors.Is(err, reactor.ErrAgain):
		o.gone()
	case err != nil:
		o.client.reg.Drained(reactor.Readable)
	}
}

// dial is the way into dialling: a connection to the next member begins.
func (o *opening) dial() {
	for o.attempt.next() {
		if o.attempt.service().speaksFirst() {
			o.handOver()
			return
		}
		addr, err := netip.ParseAddrPort(o.attempt.member.Addr)
		if err != nil || addr.Addr().Zone() != "" {
			o.handOver() // a name: looking it up takes a goroutine
			return
		}
		fd, err := o.attempt.service().sources.connect(netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()))
		if err == nil {
			o.await(fd)
			return
		}
		if (&dialError{err}).ours() {
			o.handOver() // it is tried again, and said
			return
		}
		o.attempt.failed(o.attempt.service().unreachable(o.attempt.member.Addr, err))
		o.attempt.over()
	}
	o.handOver() // nobody is left
}

func (o *opening) await(fd int) {
	reg, err := o.lane.loop.Register(fd, (*memberSide)(o))
	if err != nil { // the system has no watches left
		_ = unix.Close(fd)
		o.handOver()
		return
	}
	o.stage, o.member = dialling, socket{fd: fd, reg: reg}
	o.attempt.prepare(o.lane.loop.Scratch())
	if o.connected(); o.stage == dialling && o.member.reg == reg { // on this host it is there at once, and the wait for it is saved
		o.within(o.attempt.service().cfg.ConnectTimeout, func() { o.refused(os.ErrDeadlineExceeded) })
	}
}

// connected leaves dialling, for asking if the connection is there: it is, if it takes bytes.
func (o *opening) connected() {
	a := o.attempt
	n, err := reactor.Write(o.member.fd, a.unsent)
	a.unsent = bytes.Clone(a.unsent[n:]) // out of the loop's buffer, from which most are sent as a whole
	switch {
	case errors.Is(err, reactor.ErrAgain), errors.Is(err, unix.ENOTCONN): // the second where the system is not Linux
		o.member.reg.Drained(reactor.Writable)
	case err != nil:
		o.refused(err)
	default:
		a.connected()
		o.stage, o.looks = asking, 0
		o.within(time.Until(a.until), o.handOver) // which is too late then, and finds it out
		o.send()
	}
}

// refused goes on to the next member.
func (o *opening) refused(err error) {
	o.member.close()
	o.member = socket{fd: -1}
	o.attempt.failed(o.attempt.service().unreachable(o.attempt.member.Addr, err))
	o.attempt.over()
	o.dial()
}

func (o *opening) send() {
	for a := o.attempt; len(a.unsent) > 0; {
		n, err := reactor.Write(o.member.fd, a.unsent)
		switch {
		case errors.Is(err, reactor.ErrAgain):
			o.member.reg.Drained(reactor.Writable)
			return
		case err != nil: // it may have answered all the same
			o.handOver()
			return
		}
		a.unsent = a.unsent[n:]
	}
}

func (o *opening) answer(ev reactor.Events) {
	buf := o.lane.loop.Scratch()
	buf = buf[:min(len(buf), backendHeadBytes)]
	n, err := reactor.Peek(o.member.fd, buf)
	if errors.Is(err, reactor.ErrAgain) {
		o.member.reg.Drained(reactor.Readable)
		return
	}
	size, is := httphead.Switch(buf[:n])
	if err == nil && is == httphead.Partial && n < len(buf) && o.wait(o.member, ev) {
		return
	}
	if err != nil || is != httphead.Plain || len(o.attempt.unsent) > 0 {
		if refused := reactor.Connected(o.member.fd); errors.Is(refused, unix.ECONNREFUSED) { // the answer is our own request
			o.refused(refused)
		} else {
			o.handOver()
		}
		return
	}
	o.member.unread = n > size || n == len(buf) || ev&reactor.Ending != 0
	answer, err := o.lane.answer(buf[:size], o.attempt.request) //nolint:bodyclose // a 101 has none
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols || checkSwitch(answer, o.attempt.accept) != "" {
		o.handOver()
		return
	}
	o.attempt.answered()
	o.join(answer, size)
}

// join makes the session: the member's head has size bytes.
func (o *opening) join(answer *http.Response, size int) {
	e, a, head := o.lane.intake.edge, o.attempt, switchHead(o.lane.loop.Scratch()[:0], answer, o.attempt.x)
	n, err := reactor.Write(o.client.fd, head)
	if errors.Is(err, reactor.ErrAgain) {
		n, err = 0, nil
	}
	var early []byte
	if n < len(head) {
		early = bytes.Clone(head[n:])
	}
	if err == nil {
		var taken int
		if taken, err = reactor.Read(o.member.fd, o.lane.loop.Scratch()[:size]); taken < size && err == nil {
			err = errNoAnswer
		}
	}
	if err != nil {
		o.gone()
		return
	}
	for _, s := range []*socket{&o.client, &o.member} {
		if !s.unread {
			s.reg.Drained(reactor.Readable)
		}
	}
	client := tunnel.Socket{FD: o.client.fd, Registration: o.client.reg, Drained: !o.client.unread, Prepared: true}
	member := tunnel.Socket{FD: o.member.fd, Registration: o.member.reg, Drained: !o.member.unread, Early: early}
	o.leave()
	err = e.sessions.join(e, a, func(ended func(tunnel.Summary)) (*tunnel.Tunnel, error) {
		return e.relay.Load().JoinOn(o.lane.loop, client, member, e.access.session(a.x, ended))
	})
	if err != nil {
		e.log.Error("two connections cannot be joined", zap.String("request_id", a.x.id), zap.Error(err))
	}
	a.service().upgraded(a.x.started)
}

// handOver lets net/http go on from here.
func (o *opening) handOver() {
	h := handover{client: o.client.leave(), head: o.head, attempt: o.attempt, member: o.member.leave()}
	o.leave()
	o.lane.intake.give(h)
}

// shedLinger is how long a client that was turned away has for closing: what it has sent and nobody reads would reset the connection, and
// could take the answer with it. As long as net/http gives.
const shedLinger = 500 * time.Millisecond

// shed turns away a client who is one too many. In a storm most are, and those who are in pay for each: so it costs as little as it can.
func (o *opening) shed(x *exchange, no *refusal) {
	e := o.lane.intake.edge
	e.metrics.refusals.WithLabelValues(string(no.reason)).Inc()
	e.metrics.upgraded(x.service(), no.status, x.started)
	x.refused = no.reason
	answer, body := no.answer(x)
	e.access.ended(x, no.status, 0, int64(len(body)))
	if _, err := reactor.Write(o.client.fd, answer); err != nil { // a new connection takes all of it
		o.drop()
		return
	}
	_ = reactor.EndWrites(o.client.fd)
	o.stage = shedding
	o.within(shedLinger, o.drop)
	o.sink(reactor.Readable)
}

// sink reads off what a client that was turned away still sends, until it closes.
func (o *opening) sink(ev reactor.Events) {
	if ev&reactor.Readable == 0 {
		return
	}
	_, err := reactor.Read(o.client.fd, o.lane.loop.Scratch())
	switch {
	case errors.Is(err, reactor.ErrAgain):
		o.client.reg.Drained(reactor.Readable)
	case err != nil:
		o.drop()
	default:
		o.client.reg.Yield()
	}
}

// gone ends an attempt whose client has left, or is made to leave.
func (o *opening) gone() {
	o.lane.intake.edge.abandon(o.attempt)
	o.drop()
}

// drop closes whatever is open.
func (o *opening) drop() {
	o.client.close()
	if o.member.fd >= 0 {
		o.member.close()
	}
	o.leave()
}

// leave is the end of every opening.
func (o *opening) leave() {
	o.stage = over
	o.timer.Stop()
	o.lane.forget(o)
}

// within has f called when the stage takes longer than d.
func (o *opening) within(d time.Duration, f func()) {
	if o.timer != nil {
		o.timer.Stop()
	}
	o.timer = o.lane.loop.AfterFunc(d, f)
}
