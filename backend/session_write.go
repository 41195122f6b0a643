package backend

import (
	"slices"

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
	if s.backend.cfg.Compress && s.mayDeflate() {
		out.frame = sharedDeflate(out.frame)
	}
	s.mu.Lock()
	if s.state >= closing {
		s.mu.Unlock()
		out.settle(s, false)
		return false
	}
	// A message that waits behind none is taken whatever its size: the bound is for messages that pile up, and one that was begun
	// cannot be given up without cutting it.
	var dropped []outgoing
	if len(s.queue) > 0 && s.queued+len(out.frame) > s.backend.cfg.QueueBytes {
		if s.backend.cfg.OnFull == FullClose {
			s.mu.Unlock()
			out.settle(s, false)
			s.beginClose(Overloaded, 0, "")
			return false
		}
		dropped = s.dropOldest(len(out.frame))
	}
	written := 0
	if s.fd >= 0 && len(s.queue) == 0 {
		n, err := reactor.Write(s.fd, out.frame)
		if n == len(out.frame) {
			s.mu.Unlock()
			out.settle(s, true)
			settleDropped(s, dropped)
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
	settleDropped(s, dropped)
	if attached && first {
		s.loop.Post(s.flush) // arms the reactor, and meets a socket that became writable in between
	}
	return true
}

func (s *Session) mayDeflate() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deflate
}

// dropOldest takes messages out of the queue, the oldest first, until size bytes more fit or none is left that may go: one that was
// begun stays, and the newest is always taken. The caller holds mu, and settles what it gets once it does not.
func (s *Session) dropOldest(size int) (dropped []outgoing) {
	begun := 0
	if s.offset > 0 {
		begun = 1
	}
	n, freed := begun, 0
	for n < len(s.queue) && s.queued-freed+size > s.backend.cfg.QueueBytes {
		freed += len(s.queue[n].frame)
		n++
	}
	dropped = slices.Clone(s.queue[begun:n])
	copy(s.queue[n-begun:n], s.queue[:begun]) // moving the one that was begun is cheaper than moving those behind
	clear(s.queue[:n-begun])
	s.queue = s.queue[n-begun:]
	s.queued -= freed
	s.backend.metrics.queueBytes.Add(-float64(freed))
	s.backend.metrics.dropped.Add(float64(len(dropped)))
	return dropped
}

func settleDropped(s *Session, dropped []outgoing) {
	for _, out := range dropped {
		if out.delivery != nil {
			out.delivery.drop(s.id)
		}
	}
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
			s.awaited = false // there was no room before: the client has taken something
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
