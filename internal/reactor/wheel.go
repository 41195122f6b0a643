//go:build unix

package reactor

import (
	"math/bits"
	"time"
)

const (
	// tick is the resolution of AfterFunc. Timeouts of connections are seconds; 50 ms lets thousands of them share one wake-up.
	tick = 50 * time.Millisecond
	// wheelSize is the number of buckets, a power of two. One revolution takes 25.6 s; later timers stay in their bucket
	// for more.
	wheelSize = 512
	// farAway is from which on timers come in step of farSteps ticks: idle sessions are pinged every 30 s or so, and thousands of them would
	// have the loop wake up at every tick.
	farAway  = 10 * time.Second
	farSteps = 4
)

// Timer is a pending call of a function on a loop. See [Loop.AfterFunc].
type Timer struct {
	loop       *Loop
	f          func()
	due        int64 // in ticks since the loop's epoch
	prev, next *Timer
	list       *timerList // the list it is in; nil once fired or stopped
}

// AfterFunc runs f on the loop's goroutine once, no sooner than d from now and usually within 50 ms of that, or 200 ms where d is 10 s or more. It
// costs no goroutine and no kernel timer. It is safe from any goroutine. After the reactor's Close the timer never fires.
func (l *Loop) AfterFunc(d time.Duration, f func()) *Timer {
	t := &Timer{loop: l, f: f}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return t
	}
	l.wheel.add(t, time.Since(l.epoch), d)
	l.wakeLocked() // its wait may have to be shorter now
	return t
}

// Stop keeps the timer from firing, and reports whether it did: false means that it has fired, is about to run on its loop
// at this moment, or was stopped before. Called on the timer's own loop, f does not run after Stop, whatever it returns. It
// is safe from any goroutine.
func (t *Timer) Stop() bool {
	t.loop.mu.Lock()
	defer t.loop.mu.Unlock()
	if t.list == nil {
		return false
	}
	t.loop.wheel.remove(t)
	return true
}

// fireTimers runs what begin found due, one by one: each may stop the ones after it.
func (l *Loop) fireTimers() {
	for l.firing {
		l.mu.Lock()
		t := l.wheel.due.head
		if t == nil {
			l.firing = false
			l.mu.Unlock()
			return
		}
		l.wheel.remove(t)
		l.mu.Unlock()
		t.f()
	}
}

// timerList is a doubly linked list; the order within it means nothing.
type timerList struct{ head *Timer }

func (tl *timerList) push(t *Timer) {
	t.list, t.prev, t.next = tl, nil, tl.head
	if tl.head != nil {
		tl.head.prev = t
	}
	tl.head = t
}

func (tl *timerList) remove(t *Timer) {
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		tl.head = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	}
	t.list, t.prev, t.next = nil, nil, nil
}

// wheel is a hashed timing wheel (Varghese and Lauck 1987, scheme 6): adding and stopping take constant time, and a
// revolution touches each timer once. Times are durations since the loop's epoch. It is guarded by the loop's mutex.
type wheel struct {
	buckets  [wheelSize]timerList
	occupied [wheelSize / 64]uint64 // which buckets have timers
	due      timerList              // taken off the wheel, to be fired
	now      int64                  // the last tick that expire has dealt with
	pending  int                    // timers on the wheel
}

func (w *wheel) empty() bool { return w.pending == 0 }

// add puts t in the bucket of the first tick, or step of ticks, that is not before now+d.
func (w *wheel) add(t *Timer, now, d time.Duration) {
	step := stepFor(d)
	at := int64((now+max(d, 0)+step-1)/step) * int64(step/tick)
	if w.pending == 0 {
		w.now = int64(now / tick) // nobody turned it while it was empty
	}
	t.due = max(at, w.now+1)
	i := t.due % wheelSize
	w.buckets[i].push(t)
	w.occupied[i/64] |= 1 << (i % 64)
	w.pending++
}

func stepFor(d time.Duration) time.Duration {
	if d >= farAway {
		return farSteps * tick
	}
	return tick
}

// remove takes t off the wheel, or out of the due list.
func (w *wheel) remove(t *Timer) {
	list := t.list
	list.remove(t)
	if list == &w.due {
		return
	}
	w.pending--
	if list.head == nil {
		i := t.due % wheelSize
		w.occupied[i/64] &^= 1 << (i % 64)
	}
}

// expire moves the timers due by now to the due list.
func (w *wheel) expire(now time.Duration) {
	to := int64(now / tick)
	from := max(w.now+1, to-wheelSize+1) // after a stall longer than a revolution, each bucket once
	for at := from; at <= to; at++ {
		for t := w.buckets[at%wheelSize].head; t != nil; {
			next := t.next
			if t.due <= to {
				w.remove(t)
				w.due.push(t)
			}
			t = next
		}
	}
	w.now = max(w.now, to)
}

// untilNext is how long to wait, in milliseconds and at least 1, until expire may find something: the next bucket with a
// timer in it, even if that timer is for a later revolution.
func (w *wheel) untilNext(now time.Duration) int {
	ahead := w.nextOccupied()
	until := time.Duration(w.now+ahead)*tick - now
	return max(1, int((until+time.Millisecond-1)/time.Millisecond))
}

// nextOccupied is the distance in ticks, 1 to wheelSize, from now to the next bucket with a timer in it. The wheel must not
// be empty.
func (w *wheel) nextOccupied() int64 {
	start := (w.now + 1) % wheelSize
	for n := int64(0); n <= wheelSize/64; n++ {
		word := (start/64 + n) % (wheelSize / 64)
		set := w.occupied[word]
		if n == 0 {
			set &= ^uint64(0) << (start % 64) // the buckets before start come last, a revolution later
		}
		if set != 0 {
			i := word*64 + int64(bits.TrailingZeros64(set))
			return (i-start+wheelSize)%wheelSize + 1
		}
	}
	return wheelSize
}

// clear drops all timers; they never fire.
func (w *wheel) clear() {
	for i := range w.buckets {
		w.buckets[i].drop()
	}
	w.due.drop()
	w.occupied, w.pending = [wheelSize / 64]uint64{}, 0
}

func (tl *timerList) drop() {
	for tl.head != nil {
		tl.remove(tl.head)
	}
}
