package backend

import (
	"fmt"
	"sync"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"

	"github.com/selvedge/selvedge/internal/homing"
	"github.com/selvedge/selvedge/internal/reactor"
)

// Session is one WebSocket connection of a user. It has no goroutine of its own: bytes come from the reactor, and a goroutine
// lives only while a handler of the service runs. All methods may be called from anywhere, handlers included.
type Session struct {
	// Data is the service's own; Selvedge never touches it. Set it in OnOpen.
	Data any

	// static
	id      string
	user    string
	hash    homing.User // of user
	device  string
	address string
	since   time.Time
	backend *Backend
	strayed bool // it is here because its edge could not reach the user's home

	// the loop's, once attached
	ended   bool   // the connection is given up; events that still come are dropped
	ending  bool   // the client has shut its side, or something is wrong: read until that shows
	awaited bool   // nothing has been heard of the client since it was pinged
	rate    bucket // of the client's messages
	reader  reader
	reg     reactor.Registration
	loop    *reactor.Loop
	beat    *reactor.Timer // of the next ping, or of the end of the wait for an answer; nil without pings
	expiry  *reactor.Timer // of the end of the user's token; nil where none is known

	mu       sync.Mutex // guards what follows
	state    sessionState
	reason   CloseReason // set when state leaves open
	handling bool        // a goroutine works the inbox off
	paused   bool        // the loop waits for the inbox to shrink
	broken   bool        // the client broke the rules in a message of the inbox
	deflate  bool        // permessage-deflate was agreed on; does not change once the 101 is out
	gone     bool        // OnClose is due after the inbox
	// the way out
	fd     int        // -1 before the session is attached and after it ended
	queue  []outgoing // bounded by Config.QueueBytes, or one message where that alone is larger
	offset int        // bytes of queue[0] that are written
	queued int        // bytes of all of queue that are not
	// the way to the handlers
	inbox *inbox // nil while it is empty
	done  chan struct{}
}

type sessionState uint8

const (
	pending sessionState = iota // registered, no 101 yet: messages wait in the queue
	open
	closing // the close frame is queued: nothing more goes out, what comes in is dropped
	closed
)

const (
	readBudget   = 256 << 10       // bytes read from one session before the loop turns to the next
	closeTimeout = 5 * time.Second // for the close frame to leave and the client to close its side
)

// ID returns the session's id, unique over all members and in time.
func (s *Session) ID() string { return s.id }

// User returns the id of the user.
func (s *Session) User() string { return s.user }

// Device returns what Config.Device found in the request; may be empty.
func (s *Session) Device() string { return s.device }

// Address returns the client's IP address as the edge saw it.
func (s *Session) Address() string { return s.address }

// Since returns when the session was accepted.
func (s *Session) Since() time.Time { return s.since }

// Done is closed when the session has ended, after which Send does nothing.
func (s *Session) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done == nil {
		s.done = make(chan struct{})
		if s.state == closed {
			close(s.done)
		}
	}
	return s.done
}

// Send queues m behind what was sent before. It does not wait for the client: a session whose queue is full is closed with
// 1013. The error says only that the session is closing or closed.
func (s *Session) Send(m Message) error {
	if !s.write(outgoing{frame: m.frame()}) {
		return fmt.Errorf("session %s: %w", s.id, ErrSessionClosed)
	}
	return nil
}

// Close sends what is queued, then a close frame with code and reason, and ends the session. It returns at once; later calls do
// nothing, and messages that were read ahead are not handled any more. A code that must not be sent (RFC 6455, 7.4), 0 among them,
// is 1000; a reason above 123 bytes is cut.
func (s *Session) Close(code int, reason string) {
	if code < 0 || code > 4999 || !validCloseCode(ws.StatusCode(code)) {
		code = 0
	}
	s.beginClose(ClosedByService, ws.StatusCode(code), reason)
}

// startDeflating is called before the 101: what was queued until then goes out plain, which is always allowed.
func (s *Session) startDeflating() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deflate = true
}

// attach gives an accepted session its descriptor, whose events come to it already; it runs on the session's loop. early holds bytes that the
// client sent right behind its request; end is when it is to be closed, or zero.
func (s *Session) attach(fd int, loop *reactor.Loop, reg reactor.Registration, early []byte, end time.Time) {
	s.loop, s.reg = loop, reg
	s.mu.Lock()
	s.fd = fd
	if s.state == pending {
		s.state = open
	}
	closed := s.state == closing // before it was open
	s.mu.Unlock()
	if closed {
		s.startLinger()
		return
	}
	s.flush()
	s.startPings()
	s.endAt(end)
	if len(early) > 0 && !s.ended {
		s.take(early)
	}
}

// Ready implements reactor.Handler: writable before readable, so that a reply makes room before the next request is read.
func (s *Session) Ready(ev reactor.Events) {
	s.ending = s.ending || ev&reactor.Ending != 0
	if ev&reactor.Writable != 0 && !s.ended {
		s.flush()
	}
	if ev&(reactor.Readable|reactor.Hangup) != 0 && !s.ended {
		s.read()
	}
}

// beginClose starts the close handshake: what is queued still goes out, the close frame behind it, then our side is shut and
// the client's read to its end. It reports whether this call was the one that closed the session.
func (s *Session) beginClose(reason CloseReason, code ws.StatusCode, text string) bool {
	frame := reason.frame(code, text)
	s.mu.Lock()
	if s.state >= closing {
		s.mu.Unlock()
		return false
	}
	s.state, s.reason = closing, reason
	s.queue = append(s.queue, outgoing{frame: frame})
	s.queued += len(frame)
	s.backend.metrics.queueBytes.Add(float64(len(frame)))
	attached := s.fd >= 0
	s.mu.Unlock()
	s.backend.home.unregister(s, reason == Moved || reason == Restart)
	if attached {
		s.loop.Post(s.startLinger)
	}
	return true
}

// startLinger runs on the loop once a close began. It reads on even where reading was paused: what comes is dropped.
func (s *Session) startLinger() {
	if s.ended {
		return
	}
	s.loop.AfterFunc(closeTimeout, func() { s.end(ConnectionLost) })
	s.flush()
	if !s.ended {
		s.read()
	}
}

// end gives the connection up; it runs on the loop, or before there is one. The first reason counts: one that a close frame
// began, else the one given. But a session that was refused never was one, whoever closed it meanwhile.
func (s *Session) end(reason CloseReason) {
	if s.ended {
		return
	}
	s.ended = true
	s.reg.Unregister()
	for _, timer := range []*reactor.Timer{s.beat, s.expiry} {
		if timer != nil {
			timer.Stop()
		}
	}
	s.mu.Lock()
	if s.state < closing || reason == Refused {
		s.reason = reason
	}
	s.state = closed
	if s.fd >= 0 {
		_ = unix.Close(s.fd)
		s.fd = -1
	}
	unsent := s.queue
	s.queue = nil
	s.backend.metrics.queueBytes.Add(-float64(s.queued))
	s.queued = 0
	if s.done != nil {
		close(s.done)
	}
	s.gone = true
	s.mu.Unlock()
	s.reader = reader{}
	for _, out := range unsent {
		out.settle(s, false)
	}
	s.backend.home.unregister(s, false)
	s.handle()
}
