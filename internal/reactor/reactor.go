//go:build unix

package reactor

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
)

// ErrClosed is returned by Register once the loop's goroutine has ended or is about to: close the descriptor and give up.
var ErrClosed = errors.New("reactor: closed")

// Reactor is a fixed set of loops. Its methods are safe from any goroutine, except that Close must not be called from a
// loop's callback.
type Reactor struct {
	loops []*Loop
	next  atomic.Uint32
}

// New starts the given number of loops, GOMAXPROCS of them for 0. An error comes from the kernel (descriptors, usually:
// each loop takes three) and leaves nothing running.
func New(loops int) (*Reactor, error) { return newReactor(loops, newSystemPoller) }

// NewPortable is New with the poll(2) loop that systems without epoll use. It serves tests and comparisons on Linux.
func NewPortable(loops int) (*Reactor, error) { return newReactor(loops, newPollPoller) }

func newReactor(loops int, newPoller func() (poller, error)) (*Reactor, error) {
	if loops < 0 {
		return nil, fmt.Errorf("reactor: %d loops: want 0 (one per processor) or more", loops)
	}
	if loops == 0 {
		loops = runtime.GOMAXPROCS(0)
	}
	r := &Reactor{}
	for range loops {
		p, err := newPoller()
		if err != nil {
			_ = r.Close() // the loops started so far; the poller's error is the one to report
			return nil, fmt.Errorf("reactor: start loop %d of %d: %w", len(r.loops)+1, loops, err)
		}
		l := newLoop(p)
		r.loops = append(r.loops, l)
		go l.run()
	}
	return r, nil
}

// Loop returns the next loop in turn. A connection and everything it shares state with stay on one loop.
func (r *Reactor) Loop() *Loop {
	return r.loops[int(r.next.Add(1)-1)%len(r.loops)]
}

// Loops returns all loops, in the order in which Loop hands them out. The slice is the reactor's: do not change it.
func (r *Reactor) Loops() []*Loop { return r.loops }

// Close stops all loops and waits for their goroutines to end. A callback that runs is finished first. Registered
// descriptors stay open and stay their owners'; tasks that have not run and timers that have not fired are dropped. Owners
// that must clean up do so before Close, or after [Loop.Done]. Calling it again does nothing.
func (r *Reactor) Close() error {
	for _, l := range r.loops {
		l.stop()
	}
	for _, l := range r.loops {
		<-l.done
	}
	return nil
}
