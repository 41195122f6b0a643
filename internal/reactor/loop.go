//go:build unix

package reactor

import (
	"fmt"
	"runtime"
	"sync"
	"time"
)

const (
	// batchSize is how many events one wait takes from the kernel. More wait for the next turn: a batch is the unit within
	// which tasks and timers are delayed.
	batchSize = 256
	// scratchSize is the size of a loop's buffer in bytes; it equals the default capacity of a pipe.
	scratchSize = 64 << 10
	// keepTasks is the capacity, in tasks, that an emptied task queue keeps; a burst beyond it is given back to the collector.
	keepTasks = 1024
	// giveWay is for how many turns a busy loop keeps its processor. A turn with one small message takes some 5 us. Giving way takes 0.2, and more
	// where a processor is idle: the scheduler wakes it to look for work, and it finds the loop.
	giveWay = 16
	// spentWeight is for how many of those turns one counts in which a handler used up its budget. It takes some 25 us.
	spentWeight = 4
	// parkAfter is the usual wait from which on a loop parks, see rest; below half of it, it stops doing so.
	parkAfter = 2 * time.Millisecond
	// longWait is what a wait counts as at most: a loop that has slept long is at work again after a few short ones.
	longWait = 8 * time.Millisecond
)

// Loop is one goroutine and the descriptors registered with it.
type Loop struct {
	poller  poller
	scratch []byte
	done    chan struct{} // closed when the goroutine has ended
	epoch   time.Time     // time zero of the wheel

	// Owned by the loop's goroutine.
	events  []event
	yielded []event       // who asked to be called again, in the order of Yield; at most once per registration
	rerun   []event       // those being called
	running []func()      // tasks being run
	view    []*segment    // a copy of segments, at least as long as any slot the loop has been told of
	firing  bool          // begin found timers due
	busy    int           // turns since it gave way, some with a weight
	usual   time.Duration // of a wait that blocks, lately
	turn    uint64        // counts turns

	mu       sync.Mutex
	closing  bool     // stop was called
	closed   bool     // the poller is gone
	blocked  bool     // the goroutine is in, or about to enter, a blocking wait
	woken    bool     // and has been sent a wake-up
	tasks    []func() // see Post for why it has no bound
	segments []*segment
	free     uint32 // first free slot, noSlot if none
	wheel    wheel
}

func newLoop(p poller) *Loop {
	l := &Loop{
		poller:  p,
		scratch: make([]byte, scratchSize),
		done:    make(chan struct{}),
		events:  make([]event, batchSize),
		free:    noSlot,
		epoch:   time.Now(),
	}
	if b, ok := p.(interface{ bind(*sync.Mutex) }); ok {
		b.bind(&l.mu)
	}
	return l
}

// Scratch returns the loop's buffer of 64 KiB. Its contents are valid until the callback that asked for it returns.
func (l *Loop) Scratch() []byte { return l.scratch }

// Turn numbers the loop's turns, for those who do a bounded part of something in each: only the loop's own callbacks may ask.
func (l *Loop) Turn() uint64 { return l.turn }

// Done is closed when the loop's goroutine has ended. After that nothing runs on the loop any more, and state that belonged
// to it may be touched by whoever has seen Done.
func (l *Loop) Done() <-chan struct{} { return l.done }

// Post runs f on the loop's goroutine soon: after the events at hand, before the loop waits again. It is safe from any
// goroutine, the loop's included, never blocks and keeps the order of one caller's posts. It returns false, and drops f,
// once the reactor has been closed; a task posted before may still be dropped by Close, see [Loop.Done].
//
// The queue has no bound: a poster that had to wait could be a loop waiting for itself, and a dropped task would be a
// connection that is never closed. Users post a constant number of tasks per connection and message they have bounded
// elsewhere.
func (l *Loop) Post(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return false
	}
	l.tasks = append(l.tasks, f)
	l.wakeLocked()
	return true
}

// wakeLocked gets the goroutine out of a blocking wait. A loop that is at work looks at its queues before it blocks and
// needs no system call.
func (l *Loop) wakeLocked() {
	if l.blocked && !l.woken {
		l.woken = true
		l.poller.wake()
	}
}

// stop asks the goroutine to end after the callback it is in.
func (l *Loop) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closing = true
	l.wakeLocked()
}

// run is the life of the loop: turns until stop. One turn, in this order:
//
//  1. events of one batch, in the kernel's order; which of them are still meant for someone is checked at the moment of the call
//  2. handlers that yielded since this step last ran, in the order of their Yield
//  3. tasks that were posted before the turn began
//  4. timers that are due
//
// What a step posts or yields to itself or to an earlier one runs in the next turn, so no step can starve another. A turn's
// length is bounded by batchSize times the handlers' own budgets.
func (l *Loop) run() {
	defer close(l.done)
	for {
		n := l.wait()
		if !l.begin() {
			return
		}
		l.turn++
		l.dispatch(l.events[:n])
		l.resume()
		l.runTasks()
		l.fireTimers()
	}
}

// wait takes a batch of events. While there is traffic the first, non-blocking look finds it and the scheduler is not
// involved at all. If there is none, giving way lets goroutines run that would make work for the loop, and only then does
// it block, which is what costs the hand-off.
//
// A loop that always finds something would never give way, because its system calls are raw: goroutines would wait for the
// scheduler to interrupt it, after 10 ms. So it does after giveWay turns, or fewer in which handlers used up their
// budgets. In each of the latter the kernel is asked whether another thread wants the processor; else the loop would keep it until the next
// tick, and whoever has the other ends of its connections would wait for it.
func (l *Loop) wait() int {
	weight, spent := 1, len(l.yielded) > 0
	if spent {
		SchedYield()
		weight = spentWeight
	}
	n := l.pollOnce(0)
	goesOn := n > 0 || spent
	if l.busy += weight; goesOn && l.busy < giveWay {
		return n
	}
	l.busy = 0
	runtime.Gosched()
	if goesOn {
		return n
	}
	l.mu.Lock()
	timeout := l.timeoutLocked()
	l.blocked = timeout != 0
	l.mu.Unlock()
	if timeout == 0 {
		return 0
	}
	return l.rest(timeout)
}

// rest blocks. Where waits are short it keeps the processor, in the system call; where they are long it parks in Go's poller. Keeping is cheaper
// by the hand-off, but has the monitor thread of Go's runtime look again and again whether the processor should be taken away: see
// DESIGN.md. What the next wait will be like the last ones tell.
func (l *Loop) rest(timeout int) int {
	began := time.Now()
	var n int
	p, can := l.poller.(parker)
	switch {
	case can && l.usual >= parkAfter:
		n = l.polled(p.park(l.events, timeout))
	case can && l.usual < parkAfter/2:
		p.unpark()
		fallthrough
	default:
		n = l.pollOnce(timeout)
	}
	l.usual += (min(time.Since(began), longWait) - l.usual) / 4
	return n
}

// pollOnce waits once. The errors a poller can return mean that its own descriptor or memory is broken; there is no loop
// without it.
func (l *Loop) pollOnce(timeout int) int { return l.polled(l.poller.wait(l.events, timeout)) }

func (l *Loop) polled(n int, err error) int {
	if err != nil {
		panic(fmt.Sprintf("reactor: wait for events: %v", err))
	}
	return n
}

// timeoutLocked is how long the next wait may block, in milliseconds.
func (l *Loop) timeoutLocked() int {
	if len(l.tasks) > 0 || l.closing {
		return 0
	}
	if l.wheel.empty() {
		return -1
	}
	return l.wheel.untilNext(time.Since(l.epoch))
}

// begin takes over, under one lock for the whole turn, what others have left: tasks, new slots, due timers. It is also what
// orders the writes of Register before the loop's reads of a slot. False ends the loop.
func (l *Loop) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.blocked, l.woken = false, false
	if l.closing {
		l.closed = true
		l.tasks = nil
		l.wheel.clear()
		l.poller.close()
		return false
	}
	l.tasks, l.running = l.running[:0], l.tasks
	l.view = l.segments
	if !l.wheel.empty() {
		l.wheel.expire(time.Since(l.epoch))
		l.firing = l.wheel.due.head != nil
	}
	return true
}

// dispatch calls the handlers of events. Those that have yielded have their turn in resume, where they are told of everything but a
// hangup.
func (l *Loop) dispatch(events []event) {
	for _, e := range events {
		if s := l.slot(e.slot); s.gen == e.gen && (!s.yielded || e.ev&Hangup != 0) {
			s.handler.Ready(e.ev)
		}
	}
}

// resume calls the handlers that yielded since it last ran. Those of this turn's events have now let all the other ready
// ones go first.
func (l *Loop) resume() {
	l.rerun, l.yielded = l.yielded, l.rerun[:0]
	for _, y := range l.rerun {
		if s := l.slot(y.slot); s.gen == y.gen {
			s.yielded = false
			s.handler.Ready(Readable | Writable | Ending)
		}
	}
}

func (l *Loop) runTasks() {
	for i, f := range l.running {
		l.running[i] = nil // the queue's array outlives the task
		f()
	}
	if cap(l.running) > keepTasks {
		l.running = nil
	}
}
