package systemtest

import (
	"context"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"
)

const (
	rollingBackends  = 3
	rollingUsers     = 200
	rollingDevices   = 2
	rollingDelivered = 0.99 // the rest may be told OFFLINE, in a gap between two sessions
	rollingShare     = 0.25 // of its sessions that a backend closes in a second, at most
)

// All backends are restarted one by one, as for a new release, under pushes. No sender sees an error, no client connects again more
// often than its user's owner changed, and the backends keep their pace.
func TestRollingRestart(t *testing.T) {
	w := newWorld(t, rand.New(rand.NewPCG(1, 0)), setup{backends: rollingBackends, edges: 2, spread: 4 * time.Second, maxPerSecond: rollingShare})
	w.connect(userNames(rollingUsers), rollingDevices)
	logZero = time.Now()
	mark := w.rings.mark()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	w.pushes.wg.Go(func() { w.pushes.steadily(ctx, chaosPace) })

	for _, b := range slices.Clone(w.backends) {
		t.Logf("%8s  restart %s", at(time.Now()), b.id)
		b.busy = true
		b.signal(syscall.SIGTERM)
		if code := b.wait(2 * drainWithin); code != 0 {
			t.Errorf("%s ended with exit code %d after SIGTERM", b.id, code)
		}
		w.startBackend(b)
		w.await(30*time.Second, func() error { return w.ringOf(rollingBackends) }, b.id+" to be back")
	}
	t.Logf("%8s  all are back", at(time.Now()))
	w.await(30*time.Second, w.everybodyHome, "everybody to be at the owner")
	t.Logf("%8s  everybody is at the owner", at(time.Now()))
	stop()
	w.pushes.wg.Wait()
	w.last()
	w.clients.close()

	r := &report{began: logZero, phases: []time.Time{logZero}, pushes: w.pushes.log, sessions: w.clients.sessions(), leastMoves: w.leastMoves(mark)}
	r.judge(t)
	r.print(t)
	if len(r.verdict.failed) > 0 {
		t.Errorf("senders were told errors: %v", r.verdict.failed)
	}
	if r.shares[0] < rollingDelivered {
		t.Errorf("%.3f %% of the pushes were delivered; want %.1f %%", 100*r.shares[0], 100*rollingDelivered)
	}
	wantNoMoreThanOwners(t, r, w.rings.changes(mark, w.pushes.users))
	wantPace(t, r)
}

// wantNoMoreThanOwners compares how often each device's sessions ended with how often its user's owner changed.
func wantNoMoreThanOwners(t *testing.T, r *report, changes map[string]int) {
	t.Helper()
	ends := make(map[string][]*session)
	for _, s := range r.sessions {
		if s.ended.After(r.began) && s.cause != left && !s.opened.IsZero() {
			device := s.user + "/" + s.device
			ends[device] = append(ends[device], s)
			if s.cause != told || s.code != 1012 {
				t.Errorf("%s; want 1012", s)
			}
		}
	}
	for device, list := range ends {
		if n := changes[list[0].user]; len(list) > n {
			t.Errorf("%s was closed %d times, and its owner changed %d times: %v", device, len(list), n, list)
		}
	}
}

// wantPace fails where a backend closed twice as many sessions within a second as its pace allows.
func wantPace(t *testing.T, r *report) {
	t.Helper()
	byBackend := make(map[string][]*session)
	for _, s := range r.sessions {
		if !s.opened.IsZero() {
			byBackend[s.backend] = append(byBackend[s.backend], s)
		}
	}
	for backend, list := range byBackend {
		var ends []time.Time
		for _, s := range list {
			if s.ended.After(r.began) && s.cause != left {
				ends = append(ends, s.ended)
			}
		}
		slices.SortFunc(ends, time.Time.Compare)
		most, held := mostWithin(ends, time.Second), mostAtOnce(list)
		t.Logf("%s held up to %d sessions, and closed up to %d in one second", backend, held, most)
		if float64(most) > 2*rollingShare*float64(held) {
			t.Errorf("%s closed %d of up to %d sessions in one second; its pace is %v of them", backend, most, held, rollingShare)
		}
	}
}

// mostAtOnce is how many of the sessions were open at the same time.
func mostAtOnce(list []*session) int {
	type edge struct {
		at time.Time
		by int
	}
	var edges []edge
	for _, s := range list {
		edges = append(edges, edge{s.opened, 1})
		if !s.ended.IsZero() {
			edges = append(edges, edge{s.ended, -1})
		}
	}
	slices.SortFunc(edges, func(a, b edge) int { return a.at.Compare(b.at) })
	open, most := 0, 0
	for _, e := range edges {
		open += e.by
		most = max(most, open)
	}
	return most
}
