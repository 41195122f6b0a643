package backend

import (
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

// handle has the inbox worked off by a goroutine that lives as long as there is something in it: one per session, so that a
// slow handler holds up its own session alone.
func (s *Session) handle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.handling {
		s.handling = true
		go s.work()
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
		if !s.guard("OnMessage", func() { s.backend.cfg.OnMessage(s, m) }) {
			s.beginClose(Panicked, 0, "")
		}
	}
}

// nextMessage takes the oldest message out of the inbox and lets the loop read on where there is room again. Without a message
// the goroutine's work is over, and where the session is gone, so is the session's.
func (s *Session) nextMessage() (m Message, more bool) {
	s.mu.Lock()
	if s.state >= closing && (s.reason == ClosedByService || s.reason == Panicked) {
		s.inbox, s.inboxBytes = nil, 0 // the service has done with this session: what was read ahead is none of its business
	}
	if len(s.inbox) == 0 {
		s.inbox = nil
		s.handling = false
		last, reason := s.gone, s.reason
		s.gone = false
		s.mu.Unlock()
		if last {
			s.backend.closed(s, reason)
		}
		return Message{}, false
	}
	m = s.inbox[0]
	s.inbox[0] = Message{}
	s.inbox = s.inbox[1:]
	s.inboxBytes -= len(m.Data)
	resume := s.paused && len(s.inbox) < inboxMessages/2 && s.inboxBytes < s.backend.cfg.MessageBytes
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
