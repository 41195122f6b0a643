package backend

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvedge/selvedge/internal/httphead"
	"github.com/selvedge/selvedge/internal/reactor"
)

// stage is where an arrival is. It only goes down the list.
type stage uint8

const (
	arriving stage = iota // its head is not whole
	opening               // the service, or other members, are asked
	leaving               // refused: the answer has been written, and the client is waited for to close
	over                  // a session, handed over or closed; nothing is held any more
)

// arrival is a connection on its way to become a session: [Backend.accept] on a loop. What is no plain upgrade net/http gets, with nothing read off
// it.
type arrival struct {
	lane   *lane
	fd     int
	reg    reactor.Registration
	peer   netip.AddrPort
	stage  stage
	queued bool           // among those of the lane that are ready
	seen   reactor.Events // so far
	looks  int            // at a head that was not whole
	timer  *reactor.Timer // of the stage
	cancel context.CancelFunc
}

// mostLooks is how often a head that comes in pieces is looked at. Then it is net/http's, which keeps what it has read.
const mostLooks = 4

// leaveTimeout is how long a client that was refused has for closing: what it has sent and nobody reads would reset the connection, and could
// take the answer with it.
const leaveTimeout = 500 * time.Millisecond

func (l *lane) open(fd int, peer netip.AddrPort) {
	a := &arrival{lane: l, fd: fd, peer: peer}
	var err error
	if a.reg, err = l.loop.Register(fd, a); err != nil || l.closed {
		a.drop()
		return
	}
	l.there[a] = struct{}{}
	a.within(headTimeout, a.late)
}

// Ready implements [reactor.Handler].
func (a *arrival) Ready(ev reactor.Events) {
	a.seen |= ev
	switch a.stage {
	case arriving:
		if ev&reactor.Readable != 0 && !a.queued {
			a.queued = true
			if a.lane.ready = append(a.lane.ready, a); len(a.lane.ready) == 1 {
				a.lane.loop.Post(a.lane.serve)
			}
		}
	case opening:
		a.watch()
	case leaving:
		a.sink()
	}
}

// late lets go of who has not sent a head in time, with a FIN: what there is of one is read, since unread bytes would make it a reset.
func (a *arrival) late() {
	_, _ = reactor.Read(a.fd, a.lane.loop.Scratch())
	a.drop()
}

func (a *arrival) read() {
	buf := a.lane.loop.Scratch()[:headMost]
	n, err := reactor.Peek(a.fd, buf)
	switch {
	case errors.Is(err, reactor.ErrAgain):
		a.reg.Drained(reactor.Readable)
		return
	case err != nil: // gone before it had said anything
		a.drop()
		return
	}
	size, is := httphead.Request(buf[:n])
	if is == httphead.Partial && n < len(buf) && a.looks < mostLooks && a.seen&(reactor.Ending|reactor.Hangup) == 0 {
		a.looks++
		a.reg.Drained(reactor.Readable)
		return
	}
	if is != httphead.Plain {
		a.handOver()
		return
	}
	r, err := a.lane.request(buf[:size])
	if err != nil || !isUpgrade(r) {
		a.handOver()
		return
	}
	if taken, err := reactor.Read(a.fd, buf[:size]); taken < size || err != nil { // reset just now
		a.drop()
		return
	}
	a.timer.Stop()
	a.stage = opening
	a.begin(r)
}

// begin is [Backend.accept].
func (a *arrival) begin(r *http.Request) {
	b := a.lane.arrivals.backend
	r.RemoteAddr = a.peer.String()
	e, refusal := b.enter(r)
	if refusal != nil {
		a.refuse(misdirected(refusal, e.again))
		return
	}
	ctx, cancel := context.WithCancel(a.lane.arrivals.ctx)
	a.cancel = cancel
	r = r.WithContext(ctx)
	a.watch()
	go func() { // the service may take its time
		refusal := b.letIn(r, e)
		cancel()
		if !a.lane.loop.Post(func() { a.end(r, e, refusal) }) {
			_ = unix.Close(a.fd)
			if refusal == nil {
				e.session.end(ConnectionLost)
			}
		}
	}()
}

// end answers: the session begins, or not.
func (a *arrival) end(r *http.Request, e entry, refusal *Refusal) {
	b, s := a.lane.arrivals.backend, e.session
	if refusal != nil {
		a.refuse(misdirected(refusal, e.again))
		return
	}
	var w reply
	_, _, err := b.greet(&w, r, s)
	if err != nil {
		s.end(ConnectionLost)
		a.leave(w.sent.Bytes())
		return
	}
	if n, err := reactor.Write(a.fd, w.sent.Bytes()); err != nil || n < w.sent.Len() { // a new connection takes all of it
		s.end(ConnectionLost)
		a.drop()
		return
	}
	fd, reg := a.fd, a.reg
	a.forget()
	reg.Give(s)
	s.attach(fd, a.lane.loop, reg, nil, e.end)
	b.checkHome(s)
	if !s.ended {
		s.Ready(a.seen) // what came behind the head is an edge that is not told again
	}
}

// watch has whoever is asked know that the client has left.
func (a *arrival) watch() {
	if a.seen&(reactor.Ending|reactor.Hangup) == 0 || a.cancel == nil {
		return
	}
	var one [1]byte
	if _, err := reactor.Peek(a.fd, one[:]); err != nil && !errors.Is(err, reactor.ErrAgain) {
		a.cancel()
	}
}

func (a *arrival) refuse(refusal *Refusal) {
	var w reply
	a.lane.arrivals.backend.refuse(&w, refusal)
	a.leave(w.message())
}

// leave writes an answer and waits for the client to close.
func (a *arrival) leave(answer []byte) {
	if _, err := reactor.Write(a.fd, answer); err != nil || a.lane.closed { // a new connection takes all of it
		a.drop()
		return
	}
	_ = reactor.EndWrites(a.fd)
	a.stage = leaving
	a.within(leaveTimeout, a.drop)
	a.sink()
}

// sink reads off what a client that was refused still sends, until it closes.
func (a *arrival) sink() {
	_, err := reactor.Read(a.fd, a.lane.loop.Scratch())
	switch {
	case errors.Is(err, reactor.ErrAgain):
		a.reg.Drained(reactor.Readable)
	case err != nil:
		a.drop()
	default:
		a.reg.Yield()
	}
}

// handOver lets net/http go on from here.
func (a *arrival) handOver() {
	a.reg.Unregister()
	a.forget()
	if !a.lane.arrivals.handed.Put(a.fd) {
		_ = unix.Close(a.fd)
	}
}

func (a *arrival) drop() {
	a.reg.Unregister()
	a.forget()
	reactor.Close(a.fd)
}

// forget is the end of every arrival.
func (a *arrival) forget() {
	a.stage = over
	if a.timer != nil {
		a.timer.Stop()
	}
	delete(a.lane.there, a)
}

// within has f called when the stage takes longer than d.
func (a *arrival) within(d time.Duration, f func()) {
	a.timer = a.lane.loop.AfterFunc(d, f)
}

// reply collects an answer: what handlers write, or what is written to the connection that they hijack. The zero reply is empty.
type reply struct {
	header http.Header
	status int
	sent   bytes.Buffer // the body, or what was written after the hijacking
}

// Header implements [http.ResponseWriter].
func (w *reply) Header() http.Header {
	if w.header == nil {
		w.header = make(http.Header)
	}
	return w.header
}

// WriteHeader implements [http.ResponseWriter].
func (w *reply) WriteHeader(status int) { w.status = status }

// Write implements [http.ResponseWriter].
func (w *reply) Write(p []byte) (int, error) { return w.sent.Write(p) }

// message is the answer as it goes over the wire.
func (w *reply) message() []byte {
	w.Header().Set("Content-Length", strconv.Itoa(w.sent.Len()))
	w.header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", w.status, http.StatusText(w.status))
	_ = w.header.Write(&b) // to memory
	b.WriteString("\r\n")
	b.Write(w.sent.Bytes())
	return b.Bytes()
}

// Hijack implements [http.Hijacker].
func (w *reply) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return wire{&w.sent}, bufio.NewReadWriter(bufio.NewReaderSize(nil, 16), bufio.NewWriterSize(&w.sent, 512)), nil
}

// wire is a connection that collects what is written to it. Nothing comes of it.
type wire struct{ *bytes.Buffer }

func (wire) Read([]byte) (int, error)         { return 0, net.ErrClosed }
func (wire) Close() error                     { return nil }
func (wire) LocalAddr() net.Addr              { return nil }
func (wire) RemoteAddr() net.Addr             { return nil }
func (wire) SetDeadline(time.Time) error      { return nil }
func (wire) SetReadDeadline(time.Time) error  { return nil }
func (wire) SetWriteDeadline(time.Time) error { return nil }
