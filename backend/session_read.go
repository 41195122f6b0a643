package backend

import (
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"github.com/selvedge/selvedge/internal/reactor"
)

// read takes what the client sent, up to a budget, until the socket is empty or the handlers are behind. It runs on the loop.
func (s *Session) read() {
	buf := s.loop.Scratch()
	for budget := readBudget; budget > 0; {
		if s.pauseReading() {
			return
		}
		n, err := reactor.Read(s.fd, buf)
		switch {
		case err == reactor.ErrAgain:
			s.reg.Drained(reactor.Readable)
			return
		case err != nil:
			s.end(ConnectionLost)
			return
		}
		budget -= n
		s.awaited = false
		s.take(buf[:n])
		if s.ended {
			return
		}
		if n < len(buf) && !s.ending && !s.pauseReading() { // there was no more; a read that says so is spared
			s.reg.Drained(reactor.Readable)
			return
		}
	}
	s.reg.Yield()
}

// take parses a chunk of the client's bytes. After the close began they are read only so that closing the socket does not
// reset what the client has still to receive.
func (s *Session) take(chunk []byte) {
	if s.isClosing() {
		return
	}
	s.refuseFrames(s.reader.feed(chunk, terms{s.backend.cfg.MessageBytes, s.deflate}, s.frame))
}

// refuseFrames closes the session where err is a violation.
func (s *Session) refuseFrames(err error) {
	var broken *violation
	if errors.As(err, &broken) {
		reason := ProtocolError
		switch broken.code {
		case ws.StatusMessageTooBig:
			reason = TooBig
		case ws.StatusPolicyViolation:
			reason = RateExceeded
		}
		s.beginClose(reason, broken.code, broken.text)
	}
}

// errClosing stops the reader: frames behind a close frame are not looked at.
var errClosing = errors.New("closing")

// frame handles one frame or whole message from the client.
func (s *Session) frame(op ws.OpCode, payload []byte, deflated bool) error {
	if rate := s.backend.cfg.Limits.MessagesPerSecond; rate > 0 && op != ws.OpClose && !s.rate.take(time.Since(s.since), rate) {
		return &violation{ws.StatusPolicyViolation, "too many messages"}
	}
	switch op {
	case ws.OpPing:
		s.write(outgoing{frame: ws.MustCompileFrame(ws.NewPongFrame(payload))})
	case ws.OpPong:
	case ws.OpClose:
		return s.peerClose(payload)
	default:
		s.deliver(received{Message{Data: append([]byte(nil), payload...), Binary: op == ws.OpBinary}, deflated})
	}
	return nil
}

// peerClose answers a close frame with its own code (RFC 6455, 5.5.1).
func (s *Session) peerClose(payload []byte) error {
	if len(payload) == 1 {
		return &violation{ws.StatusProtocolError, "a close frame's code has two bytes"}
	}
	code := ws.StatusNormalClosure
	if len(payload) >= 2 {
		given, reason := ws.ParseCloseFrameData(payload)
		if !validCloseCode(given) {
			return &violation{ws.StatusProtocolError, fmt.Sprintf("code %d cannot stand in a close frame", given)}
		}
		if !utf8.ValidString(reason) {
			return &violation{ws.StatusInvalidFramePayloadData, "the reason is not UTF-8"}
		}
		code = given
	}
	s.beginClose(ClosedByClient, code, "")
	return errClosing
}

func (s *Session) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state >= closing
}

// pauseReading stops the loop from reading while the inbox is full; the handlers' goroutine has it resumed.
func (s *Session) pauseReading() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused = s.state < closing && s.inbox.isFull(s.backend.cfg.MessageBytes)
	return s.paused
}

// deliver hands a message to the service's handler, behind those before it.
func (s *Session) deliver(m received) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inbox == nil {
		s.inbox = newInbox()
	}
	s.inbox.push(m)
	s.handleLocked()
}
