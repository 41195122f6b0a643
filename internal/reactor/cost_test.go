//go:build unix

package reactor

import (
	"runtime"
	"testing"
	"unsafe"
)

// heap returns the bytes of live heap.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // the first one leaves what finalizers and pools held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestSizes(t *testing.T) {
	if n := unsafe.Sizeof(slot{}); n != 32 {
		t.Errorf("a slot has %d bytes, the package comment says 32", n)
	}
	if n := unsafe.Sizeof(Registration{}); n != 16 {
		t.Errorf("a Registration has %d bytes, the package comment says 16", n)
	}
	if n := unsafe.Sizeof(Timer{}); n > 64 {
		t.Errorf("a Timer has %d bytes, the package comment says 64", n)
	}
}

func TestIdleRegistrationCost(t *testing.T) {
	r, err := New(1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	l := r.Loop()
	if !l.poller.edges() {
		t.Skip("poll(2) keeps a table of its own")
	}
	const n = 4096
	regs := make([]Registration, n)
	fds := make([]int, n)
	for i := range fds {
		fds[i], _ = pair(t) // each of its own: one socket may be watched some 500 times by way of another epoll set
	}
	idle := ready(func(Events) {})
	before := heap()
	for i, fd := range fds {
		if regs[i], err = l.Register(fd, idle); err != nil {
			t.Fatal(err)
		}
	}
	turns(t, l, 3)
	each := float64(heap()-before) / n
	t.Logf("%.1f bytes per idle registration", each)
	if each > 48 {
		t.Errorf("%.1f bytes per idle registration, want 32 and little more", each)
	}
	onLoop(t, l, func() {
		for _, reg := range regs {
			reg.Unregister()
		}
	})
}

func TestDispatchDoesNotAllocate(t *testing.T) {
	onEachPoller(t, func(t *testing.T, r *Reactor) {
		near, far := pair(t)
		l := r.Loop()
		told := make(chan struct{}, 8)
		var reg Registration
		onLoop(t, l, func() {
			reg, _ = l.Register(near, ready(func(ev Events) {
				if ev&Readable == 0 {
					return
				}
				got := 0
				for {
					n, err := Read(near, l.Scratch())
					if err != nil {
						break
					}
					got += n
				}
				reg.Drained(Readable)
				for range got {
					told <- struct{}{}
				}
			}))
		})
		message := []byte("x")
		allocs := testing.AllocsPerRun(200, func() {
			_, _ = Write(far, message)
			<-told
		})
		if allocs > 0 {
			t.Errorf("%v allocations per message, want 0", allocs)
		}
		onLoop(t, l, func() { reg.Unregister() })
	})
}
