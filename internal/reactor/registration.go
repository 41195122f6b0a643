//go:build unix

package reactor

import (
	"fmt"
)

// slot is the loop's record of one registration, 32 bytes. Free slots form a list through next.
type slot struct {
	handler Handler
	fd      int32  // as registered
	next    uint32 // next free slot
	gen     uint32 // counts the slot's uses; only the loop's goroutine writes it, with the mutex held
	yielded bool   // is in Loop.yielded
}

const (
	segmentSize = 128        // slots per segment: segments never move, so growing copies no slot
	noSlot      = ^uint32(0) // end of the free list; also what pollers use for their own wake-up descriptor
	maxSlots    = 1 << 30    // far above any descriptor limit; keeps noSlot out of reach
)

type segment [segmentSize]slot

// Registration is one descriptor's place in a loop. It is a small value: keep it by value, copies mean the same
// registration. The zero value is no registration; its methods do nothing. Methods are for the loop's callbacks only, or
// for after [Loop.Done].
type Registration struct {
	loop      *Loop
	slot, gen uint32
}

// Register starts to deliver the events of fd to h, the first of which say how fd is now. fd must be non-blocking, stays
// the caller's and must not be closed before Unregister. It is safe from any goroutine: events may arrive before it
// returns, so a caller that is not on the loop and needs the Registration in its handler uses Post to register.
//
// It returns [ErrClosed], or the kernel's refusal (unix.EPERM for a file that cannot be polled, unix.ENOSPC or unix.ENOMEM
// when the system is out of watches or memory); then nothing is registered, and the caller closes fd.
func (l *Loop) Register(fd int, h Handler) (Registration, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return Registration{}, ErrClosed
	}
	if l.free == noSlot {
		if err := l.growLocked(); err != nil {
			return Registration{}, err
		}
	}
	i := l.free
	s := &l.segments[i/segmentSize][i%segmentSize]
	if err := l.poller.add(fd, i, s.gen); err != nil {
		return Registration{}, fmt.Errorf("reactor: register descriptor %d: %w", fd, err)
	}
	l.free = s.next
	s.handler, s.fd = h, int32(fd)
	if !l.poller.edges() {
		l.wakeLocked() // it must look at the new descriptor
	}
	return Registration{loop: l, slot: i, gen: s.gen}, nil
}

// growLocked adds a segment of free slots.
func (l *Loop) growLocked() error {
	base := uint32(len(l.segments)) * segmentSize
	if base >= maxSlots {
		return fmt.Errorf("reactor: more than %d registrations on one loop", maxSlots)
	}
	seg := new(segment)
	for i := range seg {
		seg[i].next = base + uint32(i) + 1
	}
	seg[segmentSize-1].next = l.free
	l.free = base
	l.segments = append(l.segments, seg)
	return nil
}

// slot finds a slot on the loop's goroutine without the lock. Segments are only ever appended, so an older view of them holds
// everything that the loop has been told of when it was taken; a newer slot makes it look again.
func (l *Loop) slot(i uint32) *slot {
	if int(i/segmentSize) >= len(l.view) {
		l.mu.Lock()
		l.view = l.segments
		l.mu.Unlock()
	}
	return &l.view[i/segmentSize][i%segmentSize]
}

// current returns the slot while the registration stands, nil otherwise.
func (r Registration) current() *slot {
	if r.loop == nil {
		return nil
	}
	if s := r.loop.slot(r.slot); s.gen == r.gen {
		return s
	}
	return nil
}

// Unregister ends the registration: no event arrives after it, reported or not. Call it before fd is closed. Doing it again
// does nothing.
func (r Registration) Unregister() {
	s := r.current()
	if s == nil {
		return
	}
	l := r.loop
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.poller.remove(int(s.fd), r.slot)
	}
	s.gen++ // from here on events and copies of r are stale
	s.handler, s.yielded = nil, false
	s.next, l.free = l.free, r.slot
}

// Give makes h the handler of the descriptor from now on. It saves the two system calls of a new registration. Events are not repeated:
// what its predecessor has left unread, or does not know, h must be told, or a Yield has it find out.
func (r Registration) Give(h Handler) {
	if s := r.current(); s != nil {
		s.handler = h
	}
}

// Yield asks for another Ready(Readable | Writable | Ending) after the other ready handlers have had their turn, for
// handlers that stop at a budget of bytes while there may be more. Asking several times before it comes is asking once.
func (r Registration) Yield() {
	s := r.current()
	if s == nil || s.yielded {
		return
	}
	s.yielded = true
	r.loop.yielded = append(r.loop.yielded, event{slot: r.slot, gen: r.gen})
}

// Drained says that the handler saw [ErrAgain], or a read that did not fill its buffer without [Ending], in the direction
// or directions of ev: Readable, Writable or both. It makes the loop watch for the next edge. epoll does that by itself and
// the call costs nothing there; poll(2) does not, and without the call the handler is not told again.
func (r Registration) Drained(ev Events) {
	if r.loop == nil || r.loop.poller.edges() {
		return
	}
	s := r.current()
	if s == nil {
		return
	}
	r.loop.mu.Lock()
	defer r.loop.mu.Unlock()
	if !r.loop.closed {
		r.loop.poller.rearm(r.slot, ev)
	}
}
