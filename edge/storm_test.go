package edge

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Seven hundred clients connect at once to an edge that lets in 150 a second. Those who are shed are told when to come again, at times that
// differ, and all are in at the end; a session that was there before goes on all the while.
func TestStorm(t *testing.T) {
	fast(t)
	const clients = 700
	e := start(t, Config{Membership: members(listenBackend(t, echo("b0"))), Admission: Admission{UpgradesPerSecond: 150}})
	e.nothingLeft(func() {
		old := e.send(upgradeTo("/ws?user=old"))
		if old.head().StatusCode != http.StatusSwitchingProtocols || old.line() != "b0/old" {
			t.Fatal("no session")
		}
		var in, shed atomic.Int64
		var after [6]atomic.Int64
		var wg sync.WaitGroup
		begin := make(chan struct{})
		deadline := time.Now().Add(4 * patience)
		for range clients {
			wg.Go(func() {
				for <-begin; time.Now().Before(deadline); {
					conn, err := net.Dial("tcp", e.Addr().String())
					if err != nil {
						t.Error(err)
						return
					}
					_ = conn.SetDeadline(deadline)
					_, _ = io.WriteString(conn, upgradeTo("/ws?user=a"))
					answer, err := http.ReadResponse(bufio.NewReader(conn), nil) //nolint:bodyclose // the connection ends
					switch {
					case err == nil && answer.StatusCode == http.StatusSwitchingProtocols:
						in.Add(1)
						e.client(conn)
						return
					case err != nil || answer.StatusCode != http.StatusServiceUnavailable:
						t.Errorf("answered %v, %v", answer, err)
						_ = conn.Close()
						return
					}
					_ = conn.Close()
					shed.Add(1)
					seconds, err := strconv.Atoi(answer.Header.Get("Retry-After"))
					if err != nil || seconds < 1 || seconds > 5 {
						t.Errorf("Retry-After %q", answer.Header.Get("Retry-After"))
						return
					}
					after[seconds].Add(1)
					<-time.After(time.Duration(seconds) * time.Second / 2) // the wait that was asked for, at double speed
				}
			})
		}
		began := time.Now()
		close(begin)
		done := make(chan struct{})
		go func() { defer close(done); wg.Wait() }()
		var slowest time.Duration
		for waiting := true; waiting; {
			sent := time.Now()
			say(old, "ping\n")
			if line := old.line(); line != "ping" {
				t.Fatalf("the old session got %q", line)
			}
			slowest = max(slowest, time.Since(sent))
			select {
			case <-done:
				waiting = false
			case <-time.After(10 * time.Millisecond):
			}
		}
		t.Logf("%d in after %v; %d were shed; the old session's slowest answer took %v",
			in.Load(), time.Since(began).Round(time.Millisecond), shed.Load(), slowest)
		if in.Load() != clients || shed.Load() == 0 {
			t.Errorf("%d of %d are in, %d were shed", in.Load(), clients, shed.Load())
		}
		for seconds := 1; seconds <= 5; seconds++ {
			if after[seconds].Load() == 0 {
				t.Errorf("nobody was told to wait for %d s", seconds)
			}
		}
		e.hangUp()
	})
}

// Of many who come at once and are one too many, each loop turns away a few at a time.
func TestShedAtAPace(t *testing.T) {
	fast(t)
	const clients = 400
	e := start(t, Config{Membership: members(listenBackend(t, echo("b0"))), Admission: Admission{UpgradesPerSecond: 1}})
	e.nothingLeft(func() {
		conns := make([]*client, clients)
		for i := range conns {
			conns[i] = e.send(upgradeTo("/ws?user=a")[:1])
		}
		var mu sync.Mutex
		var first, last time.Time
		var wg sync.WaitGroup
		for _, c := range conns {
			_, _ = io.WriteString(c, upgradeTo("/ws?user=a")[1:])
		}
		for _, c := range conns {
			wg.Go(func() {
				if answer := c.head(); answer.StatusCode != http.StatusServiceUnavailable {
					return // it was let in, or waits for its turn
				}
				mu.Lock()
				defer mu.Unlock()
				if last = time.Now(); first.IsZero() {
					first = last
				}
			})
		}
		wg.Wait()
		least := clients / time.Duration(openingsPerTurn*runtime.GOMAXPROCS(0)) * crowdedPause * 9 / 10 // timers are not early
		took := last.Sub(first)
		t.Logf("all were turned away within %v", took)
		if took < least {
			t.Errorf("want %v at least", least)
		}
		e.hangUp()
	})
}
