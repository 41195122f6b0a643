package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// ward is a service whose members are checked, in a bubble where only the clock moves. sick are the addresses that do not answer.
type ward struct {
	t        *testing.T
	registry *Memory
	src      *Checked
	view     *View
	logs     *observer.ObservedLogs

	mu   sync.Mutex
	sick map[string]bool
	seen map[string][]time.Time // checks, by address
}

func newWard(t *testing.T, cfg CheckConfig, members ...Member) *ward {
	t.Helper()
	core, logs := observer.New(zapcore.InfoLevel)
	w := &ward{t: t, registry: NewMemory(), logs: logs, sick: make(map[string]bool), seen: make(map[string][]time.Time)}
	for _, m := range members {
		w.registry.Put("chat", m)
	}
	cfg.TCP = true
	if cfg.Dial == nil {
		cfg.Dial = w.dial
	}
	w.src = Check(w.registry, zap.New(core))
	w.src.Configure(cfg)
	w.view = NewView("chat", w.src, nil)
	return w
}

func (w *ward) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.view.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
	synctest.Wait()
}

func (w *ward) dial(_ context.Context, m Member) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[m.Addr] = append(w.seen[m.Addr], time.Now())
	if w.sick[m.Addr] {
		return nil, errors.New("it is ill")
	}
	here, there := net.Pipe()
	there.Close()
	return here, nil
}

func (w *ward) ill(addr string, is bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sick[addr] = is
}

func (w *ward) checks(addr string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.seen[addr])
}

func (w *ward) after(d time.Duration) { time.Sleep(d); synctest.Wait() }

func (w *ward) ring() string {
	var in []string
	for _, m := range w.view.Snapshot().Members {
		if m.InRing() {
			in = append(in, m.ID)
		}
	}
	return strings.Join(in, " ")
}

func (w *ward) want(ring, when string) {
	w.t.Helper()
	if got := w.ring(); got != ring {
		w.t.Errorf("%s the ring holds %q, want %q", when, got, ring)
	}
}

// TestCheckedLeavesAndJoins: who fails `fall` checks is out, who passes `rise` is in again, and only changes are logged.
func TestCheckedLeavesAndJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, CheckConfig{PanicThreshold: 0.5, HealthCheck: HealthCheck{Interval: time.Second}}, member("a"), member("b"), member("c"))
		w.run()
		w.want("a b c", "at first")
		w.ill("b:1", true)
		w.after(1500 * time.Millisecond) // one check, or two: below fall
		w.want("a b c", "after too few bad checks")
		w.after(2500 * time.Millisecond)
		w.want("a c", "after three bad checks")
		w.after(10 * time.Second)
		if n := w.logs.Len(); n != 1 {
			t.Errorf("%d log lines for one change: %v", n, w.logs.All())
		}
		wantMetrics(t, "with one ill", w.view, "ring_members=2 ring_changes_total=2")
		if got := scrape(t, w.view)["discovery_check_failures_total"]; got == "" {
			t.Error("no counter of failed checks")
		}
		w.ill("b:1", false)
		for before := w.checks("b:1"); w.checks("b:1") == before; {
			w.after(10 * time.Millisecond)
		}
		w.after(2 * checkGap)
		w.want("a c", "after one good check")
		w.after(2500 * time.Millisecond)
		w.want("a b c", "after two good checks")
		wantMetrics(t, "well again", w.view, "discovery_flaps_total=1")
	})
}

// TestCheckedFirstResult: the first check of an address decides alone; a newcomer is out until then; a member that has moved stays as it was.
func TestCheckedFirstResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, CheckConfig{}, member("a"), member("b"))
		w.ill("b:1", true)
		w.run()
		w.want("a", "at first")
		w.ill("c:1", true)
		w.registry.Put("chat", member("c"))
		w.after(10 * time.Second)
		w.want("a", "with an ill newcomer")
		w.registry.Put("chat", member("d"))
		w.after(checkGap)
		w.want("a d", "with a good newcomer")
		moved := member("a")
		moved.Addr = "a2:1"
		w.ill("a2:1", true)
		w.registry.Put("chat", moved)
		w.after(checkGap)
		w.want("d", "after a moved to where it does not answer")
		w.registry.Delete("chat", "d")
		w.after(10 * time.Second)
		w.mu.Lock()
		defer w.mu.Unlock()
		if last := w.seen["d:1"]; time.Since(last[len(last)-1]) < 9*time.Second || len(w.seen["a:1"]) > 7 {
			t.Error("a member that is gone is still checked")
		}
	})
}

// TestCheckedWaitsForTheFirstRound: no ring comes into force before who hangs had a check's time; then it is out. Who could not be checked is in.
func TestCheckedWaitsForTheFirstRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		dial := func(ctx context.Context, m Member) (net.Conn, error) {
			switch m.ID {
			case "hangs":
				<-ctx.Done()
				return nil, ctx.Err()
			case "stuck": // and does not heed its deadline, as a look-up in the C library
				<-stuck
			}
			here, there := net.Pipe()
			there.Close()
			return here, nil
		}
		w := newWard(t, CheckConfig{Dial: dial}, member("a"), member("hangs"), member("stuck"))
		w.run()
		t.Cleanup(func() { close(stuck) })
		w.after(1100 * time.Millisecond)
		if isReady(w.view) {
			t.Error("ready before all were checked")
		}
		w.after(time.Second)
		w.want("a stuck", "after twice the timeout")
	})
}

// TestCheckedPanic: checks that fail for too many are not believed; the threshold says how many that are, and 0 that all are believed.
func TestCheckedPanic(t *testing.T) {
	for threshold, want := range map[float64]string{0: "a", 0.5: "a b c", 0.3: "a"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWard(t, CheckConfig{PanicThreshold: threshold}, member("a"), member("b"), member("c"))
			w.run()
			w.ill("b:1", true)
			w.ill("c:1", true)
			w.after(10 * time.Second)
			w.want(want, fmt.Sprintf("with one of three well, at %v,", threshold))
			w.ill("a:1", true)
			w.after(10 * time.Second)
			if want = "a b c"; threshold == 0 {
				want = ""
			}
			w.want(want, fmt.Sprintf("with none well, at %v,", threshold))
		})
	}
}

// TestCheckedOursAreNot: a list with a member that takes part in the ownership protocol stays as it is.
func TestCheckedOursAreNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours := member("b")
		ours.RPCAddr = "b:2"
		if Checkable([]Member{member("a"), member("c")}) != nil || Checkable([]Member{member("a"), ours}) == nil {
			t.Fatal("Checkable is wrong")
		}
		w := newWard(t, CheckConfig{}, member("a"))
		w.ill("a:1", true)
		w.run()
		w.registry.Put("chat", ours)
		w.after(10 * time.Second)
		w.want("a b", "with one of ours")
		if w.logs.FilterMessageSnippet("not checked").Len() != 1 {
			t.Errorf("logs: %v", w.logs.All())
		}
	})
}

// TestCheckedSpread: the checks of one member are an interval apart, give or take a tenth, and not in step with another's.
func TestCheckedSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, CheckConfig{}, member("a"), member("b"))
		w.run()
		w.after(100 * time.Second)
		w.mu.Lock()
		defer w.mu.Unlock()
		for addr, seen := range w.seen {
			for i := 1; i < len(seen); i++ {
				if gap := seen[i].Sub(seen[i-1]); gap < 1800*time.Millisecond || gap > 2200*time.Millisecond {
					t.Errorf("%s is checked again after %v", addr, gap)
				}
			}
		}
		if slices.Equal(w.seen["a:1"], w.seen["b:1"]) {
			t.Error("both are checked in step")
		}
	})
}

// TestCheckedIsBounded: of 1,000 members that hang, no more are checked at once than there are places, and each in its turn.
func TestCheckedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most, all atomic.Int64
		dial := func(ctx context.Context, _ Member) (net.Conn, error) {
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer now.Add(-1)
			all.Add(1)
			<-ctx.Done()
			return nil, ctx.Err()
		}
		registry := NewMemory()
		for i := range 1000 {
			registry.Put("chat", member(fmt.Sprint("m", i)))
		}
		src := Check(registry, nil)
		src.Configure(CheckConfig{HealthCheck: HealthCheck{TCP: true}, PanicThreshold: 0.5, Dial: dial})
		reported := watch(t, src, "chat") // without a view: a ring of 1,000 takes its time
		time.Sleep(10 * time.Second)
		synctest.Wait()
		members, reports := reported.last()
		if most.Load() != checksAtOnce || all.Load() < 1000 {
			t.Errorf("%d checks at once, %d in all", most.Load(), all.Load())
		}
		if in := len(ringMembers(members)); in != 1000 || reports > 100 {
			t.Errorf("%d in the ring, want all: this is a panic; %d reports", in, reports)
		}
	})
}

// TestCheckedConfigure: checks can be turned on, changed and off again while a view follows; nobody leaves the ring but by a bad check.
func TestCheckedConfigure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, CheckConfig{}, member("a"), member("b"))
		w.src.Configure(CheckConfig{})
		w.ill("b:1", true)
		w.run()
		w.want("a b", "without checks")
		w.src.Configure(CheckConfig{HealthCheck: HealthCheck{TCP: true}, PanicThreshold: 0.5, Dial: w.dial})
		w.after(checkGap)
		w.want("a", "with checks")
		first := w.view.RingChanges()
		w.src.Configure(CheckConfig{HealthCheck: HealthCheck{TCP: true, Interval: time.Minute}, PanicThreshold: 0.5, Dial: w.dial})
		w.after(time.Second)
		w.want("a", "with other checks")
		w.after(20 * time.Second)
		if n := len(w.seen["a:1"]); n != 2 || w.view.RingChanges() != first {
			t.Errorf("%d checks of a, %d changes of the ring", n, w.view.RingChanges()-first)
		}
		w.src.Configure(CheckConfig{})
		w.after(time.Second)
		w.want("a b", "without checks again")
		w.after(5 * time.Minute)
		if n := len(w.seen["a:1"]); n != 2 {
			t.Errorf("%d checks of a after they were turned off", n)
		}
	})
}
