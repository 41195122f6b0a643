package edge

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/selvedge/selvedge/internal/discovery"
)

var errRefused = errors.New("connection refused")

// watchedOutliers have a clock that the test moves.
type watchedOutliers struct {
	*outliers
	now  time.Time
	logs *observer.ObservedLogs
}

func newWatchedOutliers() *watchedOutliers {
	core, logs := observer.New(zapcore.InfoLevel)
	w := &watchedOutliers{now: time.Unix(1000, 0), logs: logs}
	w.outliers = newOutliers(zap.New(core))
	w.expect(ServiceConfig{}.withDefaults())
	w.ejections = prometheus.NewCounter(prometheus.CounterOpts{Name: "ejections"})
	w.clock = func() time.Time { return w.now }
	return w
}

// until is when m is let through again.
func (w *watchedOutliers) until(m discovery.Member) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.records[instanceOf(m)].until.Sub(w.now)
}

func TestEjectionGrowsByFailedTrials(t *testing.T) {
	w, m := newWatchedOutliers(), discovery.Member{ID: "b", Addr: "h:1"}
	for i, seconds := range []int{1, 2, 4, 8, 16, 30, 30, 30} {
		want := time.Duration(seconds) * time.Second
		if !w.admit(m) || i > 0 && w.admit(m) {
			t.Fatalf("trial %d: not one is let through", i)
		}
		began := w.now
		for range 100 { // many requests fail at once, and late ones after it: that is one failure
			w.failed(m, began, errRefused)
		}
		if got := w.until(m); got < want*3/4 || got > want*5/4 {
			t.Errorf("after failure %d avoided for %v, want %v +-25%%", i+1, got, want)
		}
		if got := w.logs.Len(); got != i+1 {
			t.Errorf("%d lines logged after %d ejections", got, i+1)
		}
		w.now = w.now.Add(w.until(m) / 2)
		if w.admit(m) || w.ejected() != 1 {
			t.Fatalf("let through before its time, or %d ejected", w.ejected())
		}
		before := w.until(m)
		w.failed(m, w.now, errRefused) // a last resort
		if w.until(m) != before {
			t.Error("a failure while avoided counts")
		}
		w.now = w.now.Add(before)
	}
	w.admit(m)
	w.answered(m, w.now)
	if !w.admit(m) || w.ejected() != 0 {
		t.Fatal("still avoided after an answer")
	}
	w.now = w.now.Add(time.Second)
	w.failed(m, w.now, errRefused)
	if got := w.until(m); got > avoidFirst*5/4 {
		t.Errorf("avoided for %v: the answer did not clear the record", got)
	}
}

// A trial whose client goes away says nothing: another one follows when its time is over.
func TestTrialWithoutEnd(t *testing.T) {
	w, m := newWatchedOutliers(), discovery.Member{ID: "b", Addr: "h:1"}
	early := w.now
	w.failed(m, early, errRefused)
	w.now = w.now.Add(2 * time.Second)
	if !w.admit(m) {
		t.Fatal("no trial")
	}
	w.failed(m, early, errTooLate)
	if got := w.until(m); got != w.trialTime {
		t.Fatalf("a try that began before it ended the trial: avoided for %v", got)
	}
	w.now = w.now.Add(w.trialTime - 1)
	if w.admit(m) {
		t.Fatal("two trials at once")
	}
	w.now = w.now.Add(1)
	if !w.admit(m) {
		t.Fatal("no second trial")
	}
}

// One slow request does not condemn a member that answers others.
func TestSlowRequestOfAMemberThatAnswers(t *testing.T) {
	w, m := newWatchedOutliers(), discovery.Member{ID: "b", Addr: "h:1"}
	slow := w.now
	w.now = w.now.Add(time.Second)
	w.answered(m, w.now)
	w.now = w.now.Add(4 * time.Second)
	w.failed(m, slow, errTooLate)
	if !w.admit(m) {
		t.Error("avoided")
	}
	w.failed(m, w.now, errTooLate)
	if w.admit(m) {
		t.Error("not avoided after a failure since")
	}
}

// What is known belongs to a process at an address.
func TestRecordsBelongToIncarnations(t *testing.T) {
	w, m := newWatchedOutliers(), discovery.Member{ID: "b", Incarnation: 1, Addr: "h:1", Weight: 1}
	w.failed(m, w.now, errRefused)
	heavier, restarted, elsewhere := m, m, m
	heavier.Weight, restarted.Incarnation, elsewhere.Addr = 7, 2, "h:2"
	if w.admit(heavier) || !w.admit(restarted) || !w.admit(elsewhere) {
		t.Error("a record is mistaken for another's")
	}
	w.forget(nil, &discovery.Snapshot{Members: []discovery.Member{heavier}})
	if len(w.records) != 1 {
		t.Error("a member that is there was forgotten")
	}
	w.forget(nil, &discovery.Snapshot{Members: []discovery.Member{restarted}})
	if len(w.records) != 0 {
		t.Error("a process that is gone is remembered")
	}
}

// Avoided members come last, in order, within the attempts; where all are, they are tried as they stand.
func TestWalkTriesAvoidedLast(t *testing.T) {
	e := start(t, Config{Membership: members("h:1", "h:2", "h:3", "h:4", "h:5"), Services: map[string]ServiceConfig{DefaultService: {Retries: 2}}})
	svc, all := e.service(DefaultService), order(e, "alice")
	for _, c := range []struct{ avoided, want []int }{
		{nil, []int{0, 1, 2}},
		{[]int{0}, []int{1, 2, 3}},
		{[]int{1, 2}, []int{0, 3, 4}},
		{[]int{0, 1, 3}, []int{2, 4, 0}},
		{[]int{0, 1, 2, 3, 4}, []int{0, 1, 2}},
	} {
		svc.outliers = newWatchedOutliers().outliers
		for _, i := range c.avoided {
			m, _ := e.snapshot().Member(all[i])
			svc.outliers.failed(m, svc.outliers.clock(), errRefused)
		}
		var got []int
		for m := range svc.walk(e.snapshot(), "alice").rest() {
			i := slices.Index(all, m.ID)
			if slices.Contains(m.passedOver, m.ID) || (i == 0) != (len(m.passedOver) == 0) || i > 0 && m.passedOver[0] != all[0] {
				t.Errorf("avoiding %v: %d after %q, in the order %q", c.avoided, i, m.passedOver, all)
			}
			got = append(got, i)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("avoiding %v: tried %v, want %v", c.avoided, got, c.want)
		}
	}
}

// A hung owner costs the first client its time, and those that come after it nothing: they are brought to its successor until it answers.
func TestHungOwnerIsPassedOver(t *testing.T) {
	var answers atomic.Bool
	hung := func(conn net.Conn, br *bufio.Reader, r *http.Request) {
		if answers.Load() {
			echo("b0")(conn, br, r)
			return
		}
		_, _ = br.ReadByte() // until the edge gives up
	}
	var later atomic.Int64 // on the clock of the outliers
	e := start(t, Config{Membership: members(listenBackend(t, hung), listenBackend(t, echo("b1"))),
		Services: map[string]ServiceConfig{DefaultService: {ResponseTimeout: 50 * time.Millisecond}}}, func(e *Edge) {
		began := time.Now()
		e.service(DefaultService).outliers.clock = func() time.Time { return began.Add(time.Duration(later.Load())) }
	})
	user := e.ownedBy("b0")
	at := func(want string) {
		t.Helper()
		c := e.send(upgradeTo("/ws?user=" + user))
		defer c.Close()
		if answer := c.head(); answer.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("answered %s", answer.Status)
		}
		if got := c.line(); got != want+"/"+user {
			t.Errorf("at %s, want %s", got, want)
		}
	}
	metrics := func(ejections, ejected string) {
		t.Helper()
		a, b := e.metric(`selvedge_edge_ejections_total{service="default"}`), e.metric(`selvedge_edge_ejected{service="default"}`)
		if a != ejections || b != ejected {
			t.Errorf("%s ejections, %s ejected; want %s, %s", a, b, ejections, ejected)
		}
	}
	metrics("0", "0")
	e.send(upgradeTo("/ws?user=" + user)).refused(504)
	for range 5 {
		at("b1")
	}
	metrics("1", "1")
	answers.Store(true)
	at("b1")
	later.Store(int64(avoidMost))
	at("b0")
	metrics("1", "0")
}

// A dead owner is found out once, and not by each request, be it plain or an upgrade.
func TestDeadOwnerIsDialledOnce(t *testing.T) {
	plain := func(conn net.Conn, br *bufio.Reader, r *http.Request) {
		if wantsWebSocket(r) {
			echo("b1")(conn, br, r)
			return
		}
		answering("HTTP/1.1 200 OK\nContent-Length: 0\nConnection: close\n\n")(conn, br, r)
	}
	e := start(t, Config{Membership: members(deadAddr(t), listenBackend(t, plain))}, func(e *Edge) {
		began := time.Now()
		e.service(DefaultService).outliers.clock = func() time.Time { return began }
	})
	user := e.ownedBy("b0")
	for i := range 6 {
		text := upgradeTo("/ws?user=" + user)
		if i%2 == 0 {
			text = get("/?user=" + user)
		}
		c := e.send(text)
		if code := c.head().StatusCode; code != 101 && code != 200 {
			t.Errorf("answered %d", code)
		}
		_ = c.Close()
	}
	if got := e.metric(`selvedge_edge_dial_failures_total{service="default"}`); got != "1" {
		t.Errorf("%s dials failed, want 1", got)
	}
}
