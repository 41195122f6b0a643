//go:build unix

package backend_test

import (
	"fmt"
	"net"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvedge/selvedge/internal/testkit"
)

// What an idle session takes in user space: heap and stacks. The clients are bare descriptors, so that they take nothing here. A
// generous bound; the figure is printed.
func TestIdleSessionMemory(t *testing.T) {
	const sessions, bound = 800, 4000
	c := newCluster(t, 1, nil)
	m := c.members[0]
	addr := m.Addr().(*net.TCPAddr)
	fds := make([]int, 0, sessions)
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}()
	answer := make([]byte, 1024)
	open := func(user string) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(fd, []byte(handshake(user))); err != nil {
			t.Fatal(err)
		}
		if n, err := unix.Read(fd, answer); err != nil || n < 12 || string(answer[:12]) != "HTTP/1.1 101" {
			t.Fatalf("upgrade: %q, %v", answer[:max(n, 0)], err)
		}
	}
	used := func() uint64 {
		runtime.GC()
		runtime.GC() // pools let go at the second
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc + stats.StackInuse
	}
	for i := range 100 {
		open(fmt.Sprint("warm-up-", i))
	}
	goroutines := runtime.NumGoroutine()
	before := used()
	for i := range sessions {
		open(fmt.Sprint("user-", i))
	}
	testkit.Eventually(t, 5*time.Second, func() error {
		if n := runtime.NumGoroutine(); n > goroutines+5 {
			return fmt.Errorf("%d goroutines, %d before: a session holds one", n, goroutines)
		}
		return nil
	}, "the handshakes' goroutines to end")
	per := (int64(used()) - int64(before)) / sessions
	t.Logf("%d bytes for each of %d idle sessions", per, sessions)
	if per > bound {
		t.Errorf("%d bytes for an idle session; want at most %d", per, bound)
	}
}
