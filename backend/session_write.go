package backend

import (
	"golang.org/x/sys/unix"

	"github.com/selvedge/selvedge/internal/reactor"
)

// outgoing is one frame in a session's queue, and who wants to know when it is in the kernel.
type outgoing struct {
	frame    []byte    // shared with other sessions, never changed
	delivery *delivery // nil: nobody
}

func (o outgoing) settle(s *Session, took bool) {
	if o.delivery != nil {
		o.delivery.settle(s.id, took)
	}
}

// write puts out on the wire, or behind what waits. It reports false, and settles the delivery, where the session takes
// nothing any more.
func (s *Session) write(out outgoing) bool {
	s.mu.Lock()
	if s.state >= closing {
		s.mu.Unlock()
		out.settle(s, false)
		return false
	}
	// A message that waits behind none is taken whatever its size: the bound is for messages that pile up, and one that was begun
	// cannot be given up without cutting it.
	if len(s.queue) > 0 && s.queued+len(out.frame) > s.backend.cfg.QueueBytes {
		s.mu.Unlock()
		out.settle(s, false)
		s.beginClose(Overloaded, 0, "")
		return false
	}
	written := 0
	if s.fd >= 0 && len(s.queue) == 0 {
		n, err := reactor.Write(s.fd, out.frame)
		if n == len(out.frame) {
			s.mu.Unlock()
			out.settle(s, true)
			return true
		}
		// What is wrong with the connection the loop learns from the reactor; here it only is not writable.
		if err == nil || err == reactor.ErrAgain {
			written = n
		}
	}
	s.queue = append(s.queue, out)
	if len(s.queue) == 1 {
		s.offset = written
	}
	s.queued += len(out.frame) - written
	s.backend.metrics.queueBytes.Add(float64(len(out.frame) - written))
	attached := s.fd >= 0
	first := len(s.queue) == 1
	s.mu.Unlock()
	if attached && first {
		s.loop.Post(s.flush) // arms the reactor, and meets a socket that became writable in between
	}
	return true
}

// flush writes what is queued until the socket takes no more; it runs on the loop. When a closing session's last byte is out,
// our side is shut: the client reads everything before the end.
func (s *Session) flush() {
	if s.ended {
		return
	}
	var sent []outgoing
	blocked, broken := false, false
	s.mu.Lock()
	before := s.queued
	for len(s.queue) > 0 {
		head := s.queue[0]
		n, err := reactor.Write(s.fd, head.frame[s.offset:])
		if n > 0 {
			s.offset += n
			s.queued -= n
		}
		if s.offset == len(head.frame) {
			sent = append(sent, head)
			s.queue[0] = outgoing{}
			s.queue, s.offset = s.queue[1:], 0
			continue
		}
		if err == reactor.ErrAgain {
			blocked = true
		} else if err != nil {
			broken = true
		}
		if err != nil {
			break
		}
	}
	s.backend.metrics.queueBytes.Add(float64(s.queued - before))
	empty := len(s.queue) == 0
	if empty {
		s.queue = nil
	}
	last := empty && s.state == closing
	if last {
		_ = unix.Shutdown(s.fd, unix.SHUT_WR)
	}
	s.mu.Unlock()

	for _, out := range sent {
		out.settle(s, true)
	}
	switch {
	case broken:
		s.end(ConnectionLost)
	case blocked:
		s.reg.Drained(reactor.Writable)
	}
}
