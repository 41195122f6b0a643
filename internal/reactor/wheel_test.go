//go:build unix

package reactor

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestWheelLaw drives a wheel through random adds, stops and stalls beside a plain list of due times.
func TestWheelLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w wheel
		var now time.Duration
		model := map[*Timer]time.Duration{} // no sooner than
		steps := map[*Timer]time.Duration{} // no later than that and this
		fire := func() {
			w.expire(now)
			for w.due.head != nil {
				timer := w.due.head
				w.remove(timer)
				at, ok := model[timer]
				if !ok {
					t.Fatal("fired twice, or after it was stopped")
				}
				if now < at {
					t.Fatalf("fired at %v, %v too soon", now, at-now)
				}
				delete(model, timer)
			}
			for timer, at := range model {
				if now >= at+steps[timer] {
					t.Fatalf("at %v, not fired for %v", now, now-at)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				d := time.Duration(rapid.Int64Range(-1, int64(3*wheelSize*tick)).Draw(t, "d"))
				timer := new(Timer)
				w.add(timer, now, d)
				model[timer], steps[timer] = now+d, stepFor(d)
			},
			"stop": func(t *rapid.T) {
				for timer := range model {
					w.remove(timer)
					delete(model, timer)
					break
				}
			},
			"pass": func(t *rapid.T) {
				now += time.Duration(rapid.Int64Range(0, int64(2*wheelSize*tick)).Draw(t, "pass"))
				fire()
			},
			"sleep": func(t *rapid.T) {
				if w.empty() {
					return
				}
				now += time.Duration(w.untilNext(now)) * time.Millisecond
				fire()
			},
			"": func(t *rapid.T) {
				if w.empty() != (len(model) == 0) || w.pending != len(model) {
					t.Fatalf("%d pending, want %d", w.pending, len(model))
				}
				if w.empty() {
					return
				}
				until := now + time.Duration(w.untilNext(now))*time.Millisecond
				for timer, at := range model {
					if until > max(at, now)+steps[timer]+time.Millisecond {
						t.Fatalf("at %v sleeps until %v, past a timer for %v", now, until, at)
					}
				}
			},
		})
	})
}

func TestAfterFunc(t *testing.T) {
	onEachPoller(t, func(t *testing.T, r *Reactor) {
		l := r.Loop()
		const d = 120 * time.Millisecond
		began := time.Now()
		fired := make(chan time.Duration, 1)
		l.AfterFunc(time.Hour, func() {}) // one that is far away must not hide one that is near
		l.AfterFunc(d, func() { fired <- time.Since(began) })
		if took := receive(t, fired); took < d || took > d+patience/2 {
			t.Errorf("fired after %v, want %v or little more", took, d)
		}
	})
}

func TestTimerStop(t *testing.T) {
	onEachPoller(t, func(t *testing.T, r *Reactor) {
		l := r.Loop()
		if timer := l.AfterFunc(time.Hour, func() {}); !timer.Stop() || timer.Stop() {
			t.Error("Stop: want true, then false")
		}
		// Of two timers that are due together, the first to run stops the other, which must not run.
		ran := 0
		var timers [2]*Timer
		onLoop(t, l, func() {
			for i := range timers {
				timers[i] = l.AfterFunc(0, func() {
					ran++
					timers[1-i].Stop()
				})
			}
		})
		var done bool
		onLoop(t, l, func() { l.AfterFunc(2*tick, func() { done = true }) })
		eventually(t, "a later timer", func() (ok bool) { onLoop(t, l, func() { ok = done }); return ok })
		if ran != 1 {
			t.Errorf("%d of two ran, want 1", ran)
		}
	})
}
