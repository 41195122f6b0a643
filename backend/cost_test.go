//go:build unix

package backend_test

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/testkit"
)

// What an idle session takes in user space: heap and stacks. The clients are bare descriptors, so that they take nothing here. A
// generous bound; the figure is printed.
func TestIdleSessionMemory(t *testing.T) {
	t.Run("plain", func(t *testing.T) { testIdleMemory(t) })
	t.Run("deflate", func(t *testing.T) { testIdleMemory(t, offerDeflate) })
}

func testIdleMemory(t *testing.T, lines ...string) {
	const sessions, bound = 800, 4000
	c := newCluster(t, 1, func(cfg *backend.Config) { cfg.Compress = true })
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
		if _, err := unix.Write(fd, []byte(handshake(user, lines...))); err != nil {
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

// In calm a push costs one call between members where it does not come to the home, else none, and an offline user costs no more.
func TestCallsInCalm(t *testing.T) {
	c := newCluster(t, 4, nil)
	total := func(name string) (sum float64) {
		for _, m := range c.members {
			sum += metric(t, m.registry, name)
		}
		return sum
	}
	users := make([]string, 40)
	for i := range users {
		users[i] = fmt.Sprint("user-", i)
		if i%2 == 0 {
			c.home(users[i]).dial(t, users[i], "/")
		}
	}
	pushAll := func() (forwards, asks float64, away int) {
		forwards, asks = total("selvedge_backend_forwards_total"), total("selvedge_backend_asks_total")
		for i, user := range users {
			m := c.members[i%len(c.members)]
			if n, err := m.Push(context.Background(), user, backend.Text("hi")); err != nil || n != (i+1)%2 {
				t.Fatalf("push to %s: %d, %v", user, n, err)
			}
			if m != c.home(user) {
				away++
			}
		}
		return total("selvedge_backend_forwards_total") - forwards, total("selvedge_backend_asks_total") - asks, away
	}
	// Promises are under way until each member has polled the others under the ring in force.
	testkit.Eventually(t, 10*time.Second, func() bool { _, asks, _ := pushAll(); return asks == 0 }, "calm")
	forwards, asks, away := pushAll()
	if forwards != float64(away) || asks != 0 {
		t.Errorf("%d of %d pushes came to another member than the home: %v forwards and %v questions; want %d and 0", away, len(users), forwards, asks, away)
	}
}

// BenchmarkIdleMembers tells what 20 members cost that have nothing to do: together, where they poll each other, and each alone. The difference is
// the polls' price.
func BenchmarkIdleMembers(b *testing.B) {
	b.Run("together", func(b *testing.B) { idleMembers(b, true) })
	b.Run("alone", func(b *testing.B) { idleMembers(b, false) })
}

func idleMembers(b *testing.B, together bool) {
	const members = 20
	registry := discovery.NewMemory()
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	for i := range members {
		if !together {
			registry = discovery.NewMemory()
		}
		m, err := backend.New(backend.Config{
			ID: fmt.Sprint("b", i), Listen: "127.0.0.1:0", RPC: "127.0.0.1:0", Membership: backend.Membership{Memory: registry},
			Metrics: prometheus.NewRegistry(),
		})
		if err != nil {
			b.Fatal(err)
		}
		running.Go(func() { _ = m.Run(ctx) })
		<-m.Ready()
	}
	time.Sleep(2 * time.Second) // joining is not idle
	used := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	b.ResetTimer()
	start, before := time.Now(), used()
	for range b.N {
		time.Sleep(time.Second)
	}
	share := float64(used()-before) / float64(time.Since(start))
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(100*share/members, "%cpu/member")
}
