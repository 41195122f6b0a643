package reactor

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestQuietLoopParks has a loop that is seldom needed wait in Go's poller, where timers, posts and events still reach it, and one that is
// busy in the system call.
func TestQuietLoopParks(t *testing.T) {
	r, err := New(1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	l := r.Loop()
	isParked := func() (is bool) {
		onLoop(t, l, func() { is = l.poller.(*epollPoller).file != nil })
		return is
	}
	ticks := make(chan struct{})
	for range 10 {
		l.AfterFunc(0, func() { ticks <- struct{}{} })
		receive(t, ticks)
	}
	if !isParked() {
		t.Error("a loop that waits for timers keeps a processor")
	}
	before := openDescriptors(t) // Go's poller has its own now

	near, far := pair(t)
	h := &echo{fd: near, l: l, end: make(chan error, 1)}
	onLoop(t, l, func() {
		if h.reg, err = l.Register(near, h); err != nil {
			t.Error(err)
		}
	})
	buf := make([]byte, 8)
	eventually(t, "a busy loop to wait in the system call", func() bool {
		turns(t, l, 100)
		return !isParked()
	})
	if after := openDescriptors(t); after != before+2 { // the pair
		t.Errorf("%d descriptors, %d and two before", after, before)
	}

	for range 10 {
		l.AfterFunc(0, func() { ticks <- struct{}{} })
		receive(t, ticks)
	}
	if !isParked() {
		t.Error("a loop that was busy does not park again")
	}
	send(t, far, "late")
	var n int
	eventually(t, "an echo of a parked loop", func() bool { n, _ = Read(far, buf); return n > 0 })
	if string(buf[:n]) != "late" {
		t.Errorf("got %q", buf[:n])
	}
	if err := unix.Shutdown(far, unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	_ = receive(t, h.end)
}
