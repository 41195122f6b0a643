//go:build unix

package reactor

import (
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// onEachPoller runs a test over the system's poller and over poll(2), with one loop.
func onEachPoller(t *testing.T, test func(t *testing.T, r *Reactor)) {
	for name, start := range map[string]func(int) (*Reactor, error){"system": New, "portable": NewPortable} {
		t.Run(name, func(t *testing.T) {
			r, err := start(1)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close() // before the test's cleanups close descriptors that are still registered
			test(t, r)
		})
	}
}

// pair returns two connected non-blocking sockets, closed at the end of the test if they are still open.
func pair(t testing.TB) (near, far int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
		if err := unix.SetNonblock(fd, true); err != nil {
			t.Fatal(err)
		}
		closeLater(t, fd)
	}
	return fds[0], fds[1]
}

// closeLater closes fd at the end of the test, if the test has not done so.
func closeLater(t testing.TB, fd int) {
	t.Cleanup(func() { _ = unix.Close(fd) })
}

// onLoop runs f on the loop and waits for it.
func onLoop(t testing.TB, l *Loop, f func()) {
	t.Helper()
	done := make(chan struct{})
	if !l.Post(func() { f(); close(done) }) {
		t.Fatal("Post: closed")
	}
	receive(t, done)
}

// turns lets the loop go round n times.
func turns(t testing.TB, l *Loop, n int) {
	t.Helper()
	for range n {
		onLoop(t, l, func() {})
	}
}

func receive[T any](t testing.TB, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("nothing came for %v", patience)
	}
	return v
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func send(t testing.TB, fd int, text string) {
	t.Helper()
	if n, err := Write(fd, []byte(text)); n != len(text) || err != nil {
		t.Fatalf("write: %d, %v", n, err)
	}
}

// openDescriptors counts this process's descriptors.
func openDescriptors(t testing.TB) int {
	t.Helper()
	names, err := os.ReadDir("/dev/fd")
	if err != nil {
		t.Skip("no /dev/fd here")
	}
	return len(names)
}

// ready is a Handler made of a function.
type ready func(ev Events)

func (f ready) Ready(ev Events) { f(ev) }

// collect is a Handler that passes events on.
type collect chan Events

func newCollect() collect { return make(collect, 1024) }

func (c collect) Ready(ev Events) { c <- ev }

// await receives until an event has all of want.
func (c collect) await(t testing.TB, want Events) Events {
	t.Helper()
	for {
		if ev := receive(t, c); ev&want == want {
			return ev
		}
	}
}
