package backend

import (
	"unicode/utf8"

	"go.uber.org/zap"
)

// guard runs a handler of the service and reports whether it returned. A panic costs the session, not the process and its other
// sessions, as net/http has it; the log has the stack.
func (s *Session) guard(name string, handler func()) (returned bool) {
	defer func() {
		if !returned {
			s.backend.log.Error("a handler panicked; its session ends", zap.String("handler", name),
				zap.String("session", s.id), zap.Any("panic", recover()), zap.Stack("stack"))
		}
	}()
	handler()
	return true
}

// handle has the inbox worked off by one of the crew.
func (s *Session) handle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handleLocked()
}

func (s *Session) handleLocked() {
	if !s.handling {
		s.handling = true
		s.backend.crew.hand(s)
	}
}

// work calls the service's handlers until there is nothing left for them. The call that finds the session gone is the last.
func (s *Session) work() {
	for {
		m, more := s.nextMessage()
		if !more {
			return
		}
		if s.backend.cfg.OnMessage == nil {
			continue
		}
		if m.deflated {
			if err := s.inflate(&m.Message); err != nil {
				s.breakOff(err)
				continue
			}
		}
		if !s.guard("OnMessage", func() { s.backend.cfg.OnMessage(s, m.Message) }) {
			s.beginClose(Panicked, 0, "")
		}
	}
}

// inflate is done here and not on the loop, where a message that grows to a megabyte would hold up thousands of sessions for some
// milliseconds.
func (s *Session) inflate(m *Message) error {
	plain, err := inflate(m.Data, s.backend.cfg.MessageBytes)
	if err == nil && !m.Binary && !utf8.Valid(plain) {
		err = errNotUTF8
	}
	m.Data = plain
	return err
}

// breakOff closes a session whose client broke the rules in a message that the reader could not look into. What was read behind that is
// not handled.
func (s *Session) breakOff(err error) {
	s.mu.Lock()
	s.broken = true
	s.mu.Unlock()
	s.refuseFrames(err)
}

// nextMessage takes the oldest message out of the inbox and lets the loop read on where there is room again. Without a message
// the goroutine's work is over, and where the session is gone, so is the session's.
func (s *Session) nextMessage() (m received, more bool) {
	s.mu.Lock()
	if s.broken || s.state >= closing && (s.reason == ClosedByService || s.reason == Panicked) {
		s.inbox = nil // the service has done with this session, or should: what was read ahead is none of its business
	}
	if s.inbox.isEmpty() {
		s.inbox = nil
		s.handling = false
		last, reason := s.gone, s.reason
		s.gone = false
		s.mu.Unlock()
		if last {
			s.backend.closed(s, reason)
		}
		return received{}, false
	}
	m = s.inbox.pop()
	resume := s.paused && s.inbox.hasRoom(s.backend.cfg.MessageBytes)
	if resume {
		s.paused = false
	}
	s.mu.Unlock()
	if resume {
		s.loop.Post(s.resume)
	}
	return m, true
}

// resume reads on after a pause; it runs on the loop.
func (s *Session) resume() {
	if !s.ended {
		s.read()
	}
}
