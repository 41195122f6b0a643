//go:build unix

package reactor

import "strings"

// Events is a set of things that happened to a descriptor.
type Events uint8

const (
	// Readable: reading may give bytes, the end of the stream or an error.
	Readable Events = 1 << iota
	// Writable: writing may take bytes or give an error.
	Writable
	// Hangup: the descriptor has an error pending, or both directions are shut. It always comes with Readable and Writable:
	// handlers that read and write learn of it anyway. It is for those that have stopped doing so for want of room
	// elsewhere.
	Hangup
	// Ending: something other than plain bytes is in the receive queue (the end of the stream, an error, a TCP urgent
	// mark), or this system cannot tell. Without it, a read that did not fill its buffer has emptied the queue, and the
	// read that would return [ErrAgain] can be saved: whatever arrives later is a new edge. With it, read on until ErrAgain
	// or the end.
	Ending
)

// String lists the events, for logs and tests.
func (ev Events) String() string {
	var names []string
	for i, name := range [...]string{"readable", "writable", "hangup", "ending"} {
		if ev&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, "|")
}

// Handler receives the events of one registration.
type Handler interface {
	// Ready runs on the loop's goroutine and must not block. See the package comment for what it owes the loop.
	Ready(ev Events)
}

// event is what a poller reports: a slot, the generation the slot had when it was added, and what happened.
type event struct {
	slot, gen uint32
	ev        Events
}

// poller is the kernel's side of a loop. The loop's mutex is held where it says so.
type poller interface {
	// add starts to watch fd; the slot and generation come back with its events. Mutex held.
	add(fd int, slot, gen uint32) error
	// remove stops watching. Mutex held.
	remove(fd int, slot uint32)
	// rearm says that ev was seen exhausted. Mutex held. Never called when edges() is true.
	rearm(slot uint32, ev Events)
	// edges tells whether the kernel itself reports edges, so that rearm is not needed.
	edges() bool
	// wait reports up to len(into) events. timeout is in milliseconds: 0 does not block, -1 blocks until an event or a
	// wake. Mutex not held; only the loop calls it.
	wait(into []event, timeout int) (int, error)
	// wake makes a blocked wait, or the next one, return. Mutex held.
	wake()
	close()
}

// parker is a poller that can also wait in Go's own. Only the loop calls it; the mutex is not held.
type parker interface {
	// park is wait, without keeping a processor.
	park(into []event, timeout int) (int, error)
	// unpark makes ready for waits that keep one.
	unpark()
}
