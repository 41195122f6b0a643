package edge

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/testkit"
)

// TestManyUpgradesInARow upgrades, uses and ends one session after the other, and weighs the process after a tenth of them and after all:
// nothing may be left of a session. With SELVEDGE_LONG it is 100,000.
func TestManyUpgradesInARow(t *testing.T) {
	total := 1500
	if os.Getenv("SELVEDGE_LONG") != "" {
		total = 100_000
	}
	e := start(t, Config{Membership: members(listenBackend(t, echo("b0")))})
	some := func(n int) {
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for i := w; i < n; i += 4 {
					if err := oneSession(e.Addr().String()); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	weigh := func() (live, held uint64) {
		testkit.Eventually(t, patience, func() bool { return e.Sessions() == 0 }, "the sessions have ended")
		runtime.GC()
		runtime.GC() // the first one leaves what pools held
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc, m.Sys
	}
	some(total / 10)
	live, held := weigh()
	goroutines, fds := runtime.NumGoroutine(), descriptors(t)
	some(total - total/10)
	liveNow, heldNow := weigh()
	t.Logf("live %d bytes after %d upgrades, %d after %d; held %d and %d", live, total/10, liveNow, total, held, heldNow)
	const small = 128 << 10 // what one buffer more or less of the test itself makes
	if float64(liveNow) > 1.05*float64(live)+small || float64(heldNow) > 1.05*float64(held)+8<<20 {
		t.Errorf("live %d bytes after %d upgrades, %d after %d; held %d and %d", live, total/10, liveNow, total, held, heldNow)
	}
	testkit.Eventually(t, patience, func() bool { return runtime.NumGoroutine() <= goroutines && descriptors(t) <= fds }, "nothing is left")
}

// oneSession is the life of a session as its client sees it.
func oneSession(addr string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, upgradeTo("/ws?user=a")+"hello"); err != nil {
		return err
	}
	br := bufio.NewReaderSize(conn, 1024)
	answer, err := http.ReadResponse(br, nil) //nolint:bodyclose // a 101 has none
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		return errors.New(answer.Status)
	}
	_, err = io.ReadFull(br, make([]byte, len("b0/a\nhello")))
	return err
}
