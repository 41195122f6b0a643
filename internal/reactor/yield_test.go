//go:build unix

package reactor

import (
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
)

func TestYieldLetsOthersGoFirst(t *testing.T) {
	onEachPoller(t, func(t *testing.T, r *Reactor) {
		l := r.Loop()
		var order []string
		greedy := 0
		finished := make(chan struct{})
		near := map[string]int{}
		for _, name := range []string{"greedy", "b", "c"} {
			near[name], _ = pair(t)
		}
		onLoop(t, l, func() { // in one task, so that all are found by one wait
			for name, fd := range near {
				var reg Registration
				var err error
				reg, err = l.Register(fd, ready(func(Events) {
					order = append(order, name)
					if name != "greedy" {
						return
					}
					if greedy++; greedy == 4 {
						close(finished)
						return
					}
					reg.Yield()
					reg.Yield() // asking twice is asking once
				}))
				if err != nil {
					t.Error(err)
				}
			}
		})
		receive(t, finished)
		turns(t, l, 3)
		onLoop(t, l, func() {
			if len(order) != 6 || !slices.Equal(order[3:], []string{"greedy", "greedy", "greedy"}) {
				t.Errorf("order %v, want each once and then greedy three times more", order)
			}
		})
	})
}

// A handler that has yielded is called once in a turn, though an event has come for it too.
func TestYieldedOnceATurn(t *testing.T) {
	onEachPoller(t, func(t *testing.T, r *Reactor) {
		l := r.Loop()
		near, far := pair(t)
		var calls []int    // in each turn
		turn := ^uint64(0) // none yet
		finished := make(chan struct{})
		onLoop(t, l, func() {
			var reg Registration
			var err error
			reg, err = l.Register(near, ready(func(Events) {
				if l.turn != turn {
					turn, calls = l.turn, append(calls, 0)
				}
				if calls[len(calls)-1]++; len(calls) == 8 {
					reg.Unregister()
					close(finished)
					return
				}
				send(t, far, "x") // an event of the next turn
				reg.Yield()
			}))
			if err != nil {
				t.Error(err)
			}
		})
		receive(t, finished)
		onLoop(t, l, func() {
			for i, n := range calls[1:] { // in the first, the event comes before the yield
				if n != 1 {
					t.Errorf("called %d times in turn %d", n, i+1)
				}
			}
		})
	})
}

// TestGoroutinesBesideYielders has one processor for a loop whose handler yields for ever and for a goroutine.
func TestGoroutinesBesideYielders(t *testing.T) {
	onEachPoller(t, func(t *testing.T, r *Reactor) {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
		l := r.Loop()
		near, _ := pair(t)
		var turns atomic.Int64
		var stop atomic.Bool
		stopped := make(chan struct{})
		onLoop(t, l, func() {
			var reg Registration
			var err error
			reg, err = l.Register(near, ready(func(Events) {
				if turns.Add(1); stop.Load() {
					reg.Unregister()
					close(stopped)
					return
				}
				reg.Yield()
			}))
			if err != nil {
				t.Error(err)
			}
		})
		waits := make([]int64, 100) // of this goroutine, in turns of the loop
		for i := range waits {
			before := turns.Load()
			runtime.Gosched()
			waits[i] = turns.Load() - before
		}
		stop.Store(true)
		receive(t, stopped)
		slices.Sort(waits)
		if middle := waits[len(waits)/2]; middle < 1 || middle > giveWay/spentWeight+1 {
			t.Errorf("a goroutine waits for %d turns, in the middle", middle)
		}
	})
}

func TestYieldersAndEventsAlternate(t *testing.T) {
	onEachPoller(t, func(t *testing.T, r *Reactor) {
		l := r.Loop()
		near, _ := pair(t)
		var reg Registration
		stop := false
		spins := 0
		onLoop(t, l, func() {
			var err error
			reg, err = l.Register(near, ready(func(Events) {
				if spins++; !stop {
					reg.Yield() // for ever: it must not keep tasks, timers or others' events away
				}
			}))
			if err != nil {
				t.Error(err)
			}
		})
		near2, far2 := pair(t)
		h := &echo{fd: near2, l: l, end: make(chan error, 1)}
		onLoop(t, l, func() { h.reg, _ = l.Register(near2, h) })
		send(t, far2, "hello")
		eventually(t, "an echo beside a handler that always yields", func() bool { n, _ := Read(far2, make([]byte, 9)); return n == 5 })
		fired := make(chan struct{})
		l.AfterFunc(0, func() { close(fired) })
		receive(t, fired)
		onLoop(t, l, func() { stop = true })
		turns(t, l, 2)
		var a, b int
		onLoop(t, l, func() { a = spins })
		turns(t, l, 5)
		onLoop(t, l, func() { b = spins })
		if a == 0 || a != b {
			t.Errorf("%d calls, then %d: want some, and none after the last Yield", a, b)
		}
	})
}
