//go:build unix

package reactor

import (
	"errors"
	"io"
	"slices"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// echo reads until ErrAgain and writes back, as the contract asks.
type echo struct {
	fd  int
	l   *Loop
	reg Registration
	end chan error
}

func (e *echo) Ready(ev Events) {
	for ev&Readable != 0 {
		n, err := Read(e.fd, e.l.Scratch())
		if err == ErrAgain {
			e.reg.Drained(Readable)
			return
		}
		if err != nil {
			e.reg.Unregister()
			e.end <- err
			return
		}
		if w, err := Write(e.fd, e.l.Scratch()[:n]); w != n {
			e.end <- err
		}
	}
}

func TestEcho(t *testing.T) {
	onEachPoller(t, func(t *testing.T, r *Reactor) {
		near, far := pair(t)
		h := &echo{fd: near, l: r.Loop(), end: make(chan error, 1)}
		onLoop(t, h.l, func() {
			var err error
			if h.reg, err = h.l.Register(near, h); err != nil {
				t.Error(err)
			}
		})
		buf := make([]byte, 100)
		for _, text := range []string{"one", "two", "three"} {
			send(t, far, text)
			var n int
			eventually(t, "an echo", func() (ok bool) { n, _ = Read(far, buf); return n > 0 })
			if string(buf[:n]) != text {
				t.Fatalf("got %q, want %q", buf[:n], text)
			}
		}
		if err := unix.Shutdown(far, unix.SHUT_WR); err != nil {
			t.Fatal(err)
		}
		if err := receive(t, h.end); err != io.EOF {
			t.Fatalf("end: %v, want EOF", err)
		}
	})
}

// What was done before a write comes before what is done once that is read, as with package net: the race detector would say so.
func TestBytesOrderMemory(t *testing.T) {
	onEachPoller(t, func(t *testing.T, r *Reactor) {
		near, far := pair(t)
		l, said := r.Loop(), ""
		reg, err := l.Register(near, ready(func(ev Events) {
			if n, err := Read(near, l.Scratch()); n > 0 && err == nil {
				said += " heard"
				if _, err := Write(near, l.Scratch()[:n]); err != nil {
					t.Error(err)
				}
			}
		}))
		if err != nil {
			t.Fatal(err)
		}
		defer onLoop(t, l, reg.Unregister)
		said = "said"
		if _, err := syscall.Write(far, []byte("x")); err != nil { // as package net does
			t.Fatal(err)
		}
		eventually(t, "the echo", func() bool { n, _ := syscall.Read(far, make([]byte, 1)); return n == 1 })
		if said != "said heard" {
			t.Errorf("%q", said)
		}
	})
}

func TestEventsAreEdges(t *testing.T) {
	onEachPoller(t, func(t *testing.T, r *Reactor) {
		near, far := pair(t)
		l, events := r.Loop(), newCollect()
		reg, err := l.Register(near, events)
		if err != nil {
			t.Fatal(err)
		}
		events.await(t, Writable) // the first event says how it is
		send(t, far, "x")
		events.await(t, Readable)

		// Neither what is unread nor the room to write is told again.
		turns(t, l, 20)
		if n := len(events); n > 0 {
			t.Fatalf("%d events more for one edge: %v", n, <-events)
		}

		onLoop(t, l, func() {
			if n, err := Read(near, l.Scratch()); n != 1 || err != nil {
				t.Errorf("read: %d, %v", n, err)
			}
			reg.Drained(Readable)
		})
		send(t, far, "y")
		events.await(t, Readable)
		onLoop(t, l, reg.Unregister)
	})
}

func TestWritableAfterFull(t *testing.T) {
	onEachPoller(t, func(t *testing.T, r *Reactor) {
		near, far := pair(t)
		l, events := r.Loop(), newCollect()
		reg, err := l.Register(near, events)
		if err != nil {
			t.Fatal(err)
		}
		events.await(t, Writable)
		onLoop(t, l, func() {
			for err := error(nil); err == nil; {
				_, err = Write(near, l.Scratch())
			}
			reg.Drained(Writable)
		})
		turns(t, l, 5)
		for len(events) > 0 {
			if ev := <-events; ev&Writable != 0 {
				t.Fatalf("%v while full", ev)
			}
		}
		for buf := make([]byte, 64<<10); ; {
			if _, err := Read(far, buf); err == ErrAgain {
				break
			}
		}
		events.await(t, Writable)
		onLoop(t, l, reg.Unregister)
	})
}

func TestEnding(t *testing.T) {
	tests := map[string]struct {
		do   func(t *testing.T, far int)
		want Events
	}{
		"end of stream": {func(t *testing.T, far int) { _ = unix.Shutdown(far, unix.SHUT_WR) }, Readable | Ending},
		"end with data": {func(t *testing.T, far int) { send(t, far, "bye"); _ = unix.Shutdown(far, unix.SHUT_WR) }, Readable | Ending},
		"urgent mark":   {func(t *testing.T, far int) { _ = unix.Sendto(far, []byte("!"), unix.MSG_OOB, nil) }, Readable | Ending},
		"reset": {func(t *testing.T, far int) {
			_ = unix.SetsockoptLinger(far, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			_ = unix.Close(far)
		}, Readable | Writable | Hangup | Ending},
	}
	onEachPoller(t, func(t *testing.T, r *Reactor) {
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				if name == "urgent mark" && !r.loops[0].poller.edges() {
					t.Skip("poll(2) is not asked for POLLPRI: reading on finds all there is")
				}
				near, far := tcpPair(t)
				events := newCollect()
				reg, err := r.Loop().Register(near, events)
				if err != nil {
					t.Fatal(err)
				}
				events.await(t, Writable)
				tt.do(t, far)
				events.await(t, tt.want)
				onLoop(t, reg.loop, reg.Unregister)
			})
		}
	})
}

func TestPlainBytesAreNotEnding(t *testing.T) {
	r, err := New(1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if !r.loops[0].poller.edges() {
		t.Skip("poll(2) cannot tell")
	}
	near, far := tcpPair(t)
	events := newCollect()
	reg, err := r.Loop().Register(near, events)
	if err != nil {
		t.Fatal(err)
	}
	send(t, far, "plain")
	if ev := events.await(t, Readable); ev&Ending != 0 {
		t.Fatalf("%v for plain bytes", ev)
	}
	onLoop(t, reg.loop, reg.Unregister)
}

// TestReuseWithinBatch closes a descriptor while its event is in the batch at hand, and has the number and the slot reused
// at once.
func TestReuseWithinBatch(t *testing.T) {
	onEachPoller(t, func(t *testing.T, r *Reactor) {
		l := r.Loop()
		type conn struct {
			near, far int
			reg       Registration
			called    int
		}
		var conns [2]conn
		var reused conn
		replacement := newCollect()
		var armed bool
		for i := range conns {
			c, other := &conns[i], &conns[1-i]
			c.near, c.far = pair(t)
			onLoop(t, l, func() {
				reg, err := l.Register(c.near, ready(func(ev Events) {
					if !armed || ev&Readable == 0 {
						return
					}
					c.called++
					if other.called > 0 {
						return // too late: reported as a failure below
					}
					// First of the two: the other one's event is in this batch too. Close it and have everything of it reused.
					other.reg.Unregister()
					if err := unix.Dup2(spare(t), other.near); err != nil {
						t.Error(err)
					}
					reused.near = other.near
					var err error
					if reused.reg, err = l.Register(reused.near, replacement); err != nil {
						t.Error(err)
					}
					if reused.reg.slot != other.reg.slot || reused.reg.gen == other.reg.gen {
						t.Errorf("slot %d generation %d after %d, %d", reused.reg.slot, reused.reg.gen, other.reg.slot, other.reg.gen)
					}
				}))
				if err != nil {
					t.Error(err)
				}
				c.reg = reg
			})
		}
		turns(t, l, 3)
		onLoop(t, l, func() { // the loop is busy here, so both are found by one wait
			armed = true
			send(t, conns[0].far, "a")
			send(t, conns[1].far, "b")
		})
		ev := receive(t, replacement)
		turns(t, l, 3)
		if conns[0].called+conns[1].called != 1 {
			t.Errorf("handlers called %d and %d times, want one of them once", conns[0].called, conns[1].called)
		}
		if ev&Readable != 0 || len(replacement) > 0 {
			t.Errorf("the new descriptor got %v and %d more events, want its own Writable", ev, len(replacement))
		}
	})
}

// spare returns a descriptor of a socket that is writable and nothing else.
func spare(t *testing.T) int {
	near, _ := pair(t)
	return near
}

func TestNothingAfterUnregister(t *testing.T) {
	onEachPoller(t, func(t *testing.T, r *Reactor) {
		l := r.Loop()
		near, far := pair(t)
		called := 0
		onLoop(t, l, func() {
			reg, err := l.Register(near, ready(func(Events) { called++ }))
			if err != nil {
				t.Error(err)
			}
			reg.Yield()
			reg.Unregister()
			reg.Unregister() // does nothing
			reg.Yield()
			reg.Drained(Readable)
			Registration{}.Unregister()
		})
		send(t, far, "x")
		turns(t, l, 5)
		if called > 0 {
			t.Errorf("called %d times", called)
		}
	})
}

func TestPostKeepsOrder(t *testing.T) {
	onEachPoller(t, func(t *testing.T, r *Reactor) {
		const posters, each = 8, 500
		l := r.Loop()
		var got [posters][]int
		var wg sync.WaitGroup
		for p := range posters {
			wg.Go(func() {
				for i := range each {
					l.Post(func() { got[p] = append(got[p], i) })
				}
			})
		}
		wg.Wait()
		turns(t, l, 1)
		for p := range got {
			if len(got[p]) != each || !slices.IsSorted(got[p]) {
				t.Errorf("poster %d: %d tasks, sorted %v", p, len(got[p]), slices.IsSorted(got[p]))
			}
		}
		// A task may post; that one runs too.
		done := make(chan struct{})
		l.Post(func() { l.Post(func() { close(done) }) })
		receive(t, done)
	})
}

func TestClose(t *testing.T) {
	for name, start := range map[string]func(int) (*Reactor, error){"system": New, "portable": NewPortable} {
		t.Run(name, func(t *testing.T) {
			near, _ := pair(t)
			before := openDescriptors(t)
			r, err := start(3)
			if err != nil {
				t.Fatal(err)
			}
			l := r.Loop()
			if l == r.Loop() || len(r.Loops()) != 3 {
				t.Error("Loop does not go round")
			}
			reg, err := l.Register(near, newCollect())
			if err != nil {
				t.Fatal(err)
			}
			timer := l.AfterFunc(patience, func() { t.Error("fired") })
			turns(t, l, 1)
			for range 2 {
				if err := r.Close(); err != nil {
					t.Fatal(err)
				}
			}
			<-l.Done()
			if l.Post(func() {}) {
				t.Error("Post after Close: true")
			}
			if _, err := l.Register(near, newCollect()); !errors.Is(err, ErrClosed) {
				t.Errorf("Register after Close: %v", err)
			}
			if timer.Stop() || l.AfterFunc(0, func() {}).Stop() {
				t.Error("a timer was pending after Close")
			}
			reg.Unregister() // does no harm
			if _, err := unix.FcntlInt(uintptr(near), unix.F_GETFD, 0); err != nil {
				t.Errorf("the registered descriptor: %v, want it open", err)
			}
			if after := openDescriptors(t); after != before {
				t.Errorf("%d descriptors, %d before", after, before)
			}
		})
	}
}

func TestNewRefusesNegative(t *testing.T) {
	if _, err := New(-1); err == nil {
		t.Error("no error")
	}
}

func TestRegisterRefusedByKernel(t *testing.T) {
	r, err := New(1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	l := r.Loop()
	if !l.poller.edges() {
		t.Skip("poll(2) tells when it is too late")
	}
	if _, err := l.Register(1<<20, newCollect()); !errors.Is(err, unix.EBADF) {
		t.Errorf("error %v, want EBADF", err)
	}
	near, _ := pair(t)
	reg, err := l.Register(near, newCollect())
	if err != nil || reg.slot != 0 {
		t.Errorf("slot %d, %v: the failed one has kept its slot", reg.slot, err)
	}
}
