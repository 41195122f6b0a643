package systemtest

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/testkit"
)

// lines are instances of selvedge.js, in a process of Node or in a page, and what has happened to them.
type lines struct {
	t      testing.TB
	events func() []lineEvent
}

// lineEvent is one of a line's states, or a dial, a hello or another message; or it says that a process or page, which is the line then, has stood still.
type lineEvent struct {
	At                        int64 // ms of the clock that this process has
	Line                      string
	Event, URL, Backend, Data string
	Code                      int
	Reason                    string
	Wait                      float64 // ms
}

// startLines runs testdata/js/lines.mjs until the test ends.
func startLines(t *testing.T, edge string, users int, modes ...string) *lines {
	t.Helper()
	return &lines{t, runProgram[lineEvent](t, "lines.mjs", append([]string{edge, strconv.Itoa(users)}, modes...)...).events}
}

// since returns each line's events from then on.
func (l *lines) since(then time.Time) map[string][]lineEvent {
	of := make(map[string][]lineEvent)
	for _, e := range l.events() {
		if e.At >= then.UnixMilli() {
			of[e.Line] = append(of[e.Line], e)
		}
	}
	return of
}

// held is where each line is: "" while it is nowhere.
func (l *lines) held() map[string]string {
	at := make(map[string]string)
	for line, events := range l.since(time.Time{}) {
		for _, e := range events {
			switch e.Event {
			case "hello":
				at[line] = e.Backend
			case "moved", "waiting", "closed", "connecting":
				at[line] = ""
			}
		}
	}
	return at
}

func (l *lines) await(within time.Duration, n int, what string, ok func(backend string) bool) {
	l.t.Helper()
	testkit.Eventually(l.t, within, func() error {
		held := l.held()
		good := 0
		for _, at := range held {
			if at != "" && ok(at) {
				good++
			}
		}
		if good != n {
			return fmt.Errorf("%d of %d: %v", good, n, held)
		}
		return nil
	}, what)
}

// wantOnce waits until n lines have got text, and fails where one got it more than once.
func (l *lines) wantOnce(n int, text string) {
	l.t.Helper()
	testkit.Eventually(l.t, 10*time.Second, func() error {
		got := 0
		for _, events := range l.since(time.Time{}) {
			switch count(events, func(e lineEvent) bool { return e.Data == text }) {
			case 0:
			case 1:
				got++
			default:
				l.t.Fatalf("%s got %q more than once", events[0].Line, text)
			}
		}
		if got != n {
			return fmt.Errorf("%d of %d", got, n)
		}
		return nil
	}, "every line to get "+text)
}

func count(events []lineEvent, what func(lineEvent) bool) (n int) {
	for _, e := range events {
		if what(e) {
			n++
		}
	}
	return n
}

// How soon a client of a backend that was killed is to be back: 19 of 20, by a clock that stands still when the client's process does; and all, on
// a machine that is busy with other things.
const (
	backWithin = 2 * time.Second
	backBusy   = 15 * time.Second
)

// selvedge.js in Node and in Chromium, there from another origin, which the edge lists: users with a line through the edge and a direct one each. Both
// get each push once; after a kill -9 of their backend both are back at once, and nobody tries the dead address twice in a row; a drain, which
// is announced, shows nobody an error.
func TestLines(t *testing.T) {
	const inNode, inPage = 40, 12
	site := newLinesSite(t, inPage)
	c, _ := newDispatchingCluster(t, 3, fmt.Sprintf("limits: {origins: [%q]}\n", site.URL))
	node := startLines(t, "ws://"+c.edges[0].addr, inNode, "edge", "direct")
	tb := site.open("http://" + c.edges[0].addr)
	l := &lines{t, func() []lineEvent { return append(node.events(), eval[[]lineEvent](tb, `window.events`)...) }}
	users := userNames(inNode)
	for i := range inPage {
		users = append(users, fmt.Sprintf("page-%d", i))
	}
	n := 2 * len(users)

	l.await(30*time.Second, n, "all lines to be open", func(string) bool { return true })
	owner := c.owners(users)
	for line, at := range l.held() {
		if user, _, _ := strings.Cut(line, " "); owner[user] != at {
			t.Errorf("%s is at %s, owner %s", line, at, owner[user])
		}
	}
	push := func(text string) {
		t.Helper()
		for _, r := range c.push(users, text) {
			if r.Outcome != "DELIVERED" || r.Sessions != 2 {
				t.Errorf("%s: %+v", text, r)
			}
		}
		l.wantOnce(n, text)
	}
	push("at first")

	before := l.held()
	dead := c.backends["b1"].addr
	killed := time.Now()
	c.backends["b1"].kill()
	delete(c.backends, "b1")
	l.await(20*time.Second, n, "all lines to be back", func(at string) bool { return at != "b1" })
	l.wantBack(killed, dead, before, "b1")
	c.awaitRing(2)
	push("after the kill")

	before = l.held()
	tb.forgetErrors() // a connection that a kill cuts off is one to the console
	drained := time.Now()
	c.backends["b2"].signal(syscall.SIGTERM)
	l.await(30*time.Second, n, "all lines to be at b3", func(at string) bool { return at == "b3" })
	l.wantMoved(drained, before, "b2")
	push("after the drain")
	tb.wantQuietConsole()
}

// wantBack fails unless each line that was at the backend that was killed, and no other, has come back in time, without a second try at its address.
func (l *lines) wantBack(killed time.Time, addr string, before map[string]string, backend string) {
	l.t.Helper()
	var slowest time.Duration
	hit, late := 0, 0
	since := l.since(killed)
	for line, at := range before {
		events := since[line]
		if at != backend {
			if n := count(events, func(e lineEvent) bool { return e.Event != "message" }); n > 0 {
				l.t.Errorf("%s was at %s, and yet: %+v", line, at, events)
			}
			continue
		}
		hit++
		back := slices.IndexFunc(events, func(e lineEvent) bool { return e.Event == "hello" })
		if back < 0 {
			l.t.Errorf("%s has not come back: %+v", line, events)
			continue
		}
		took := time.Duration(events[back].At-killed.UnixMilli()) * time.Millisecond
		slowest = max(slowest, took)
		process, _, _ := strings.Cut(line, "-")
		if took-stoodStill(since[process], events[back].At) > backWithin {
			late++
		}
		if took > backBusy {
			l.t.Errorf("%s was back after %v: %+v", line, took, events)
		}
		if n := count(events, func(e lineEvent) bool { return e.Event == "dial" && e.URL == addr }); n > 1 {
			l.t.Errorf("%s tried the dead address %d times: %+v", line, n, events)
		}
	}
	l.t.Logf("%d lines were cut off; the slowest was back after %v", hit, slowest)
	if late > hit/20 {
		l.t.Errorf("%d lines were not back within %v", late, backWithin)
	}
	if hit == 0 {
		l.t.Error("nobody was at the backend that was killed: this shows nothing")
	}
}

// stoodStill is how long a process stood still until then.
func stoodStill(events []lineEvent, until int64) time.Duration {
	ms := 0.0
	for _, e := range events {
		if e.Event == "late" && e.At <= until {
			ms += e.Wait
		}
	}
	return time.Duration(ms * float64(time.Millisecond))
}

// wantMoved fails unless each line that was at a backend that drained has moved, once, and nothing worse was shown to it.
func (l *lines) wantMoved(drained time.Time, before map[string]string, backend string) {
	l.t.Helper()
	hit := 0
	since := l.since(drained)
	for line, at := range before {
		var states []string
		for _, e := range since[line] {
			if e.Event != "dial" && e.Event != "message" {
				states = append(states, e.Event)
			}
			if e.Event == "moved" && (e.Code != 1012 || e.Wait > 251) {
				l.t.Errorf("%s: %+v; want 1012, and an attempt within 250 ms", line, e)
			}
		}
		var want []string
		if at == backend {
			hit++
			want = []string{"moved", "connecting", "open", "hello"}
		}
		if !slices.Equal(states, want) {
			l.t.Errorf("%s, which was at %s, went through %q, want %q: %+v", line, at, states, want, since[line])
		}
	}
	l.t.Logf("%d lines were moved", hit)
	if hit == 0 {
		l.t.Error("nobody was at the backend that drained: this shows nothing")
	}
}

// An edge dies under 500 clients, whose attempts to come back fail until it is there again. Each round of them is spread evenly over the time
// that its waits are to be drawn from, which doubles.
func TestLinesSpread(t *testing.T) {
	c := newCluster(t, 2, 0)
	addr := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	edge := startEdge(t, "edge", "--listen", addr, "--consul", c.consul.Addr)
	edge.awaitReady()
	const n, rounds = 500, 3
	l := startLines(t, "ws://"+addr, n, "edge")
	open := func() { l.await(60*time.Second, n, "all lines to be open", func(string) bool { return true }) }
	open()

	killed := time.Now()
	edge.kill()
	testkit.Eventually(t, 60*time.Second, func() error {
		tried := 0
		for _, events := range l.since(killed) {
			if count(events, func(e lineEvent) bool { return e.Event == "dial" }) >= rounds {
				tried++
			}
		}
		if tried < n {
			return fmt.Errorf("%d of %d have", tried, n)
		}
		return nil
	}, "all lines to have tried three times")
	startEdge(t, "edge again", "--listen", addr, "--consul", c.consul.Addr)

	var drawn, taken [rounds][]float64
	var still time.Duration
	for line, events := range l.since(killed) {
		if line == "user" {
			still = stoodStill(events, math.MaxInt64)
			continue
		}
		var waits, took []float64
		var from int64
		for _, e := range events {
			switch {
			case e.Event == "waiting":
				waits, from = append(waits, e.Wait), e.At
			case e.Event == "dial" && len(took) < len(waits):
				took = append(took, float64(e.At-from))
			}
		}
		for round := range rounds {
			drawn[round], taken[round] = append(drawn[round], waits[round]), append(taken[round], took[round])
			if took[round] < 0.9*waits[round]-50 { // Node counts from when it began to look at what has happened
				t.Errorf("%s did not wait: %+v", line, events)
			}
		}
	}
	for round := range rounds {
		most := 500 * math.Pow(2, float64(round))
		byDraw, byClock := unevenness(drawn[round], most), unevenness(taken[round], most)
		t.Logf("round %d: waits to %.0f ms of %.0f are %.3f from an even spread; attempts %.3f, by a process that stood still for %v", round+1,
			drawn[round][n-1], most, byDraw, byClock, ms(still))
		if byDraw > 0.12 || drawn[round][n-1] > most+1 { // one of a million draws of 500 is further off
			t.Errorf("round %d is not spread over %.0f ms", round+1, most)
		}
		if byClock > 0.3 && still < 200*time.Millisecond { // else the machine is busy with other things
			t.Errorf("round %d: attempts are not spread over %.0f ms", round+1, most)
		}
	}
	open()
}

// unevenness is the greatest distance between the shares that waits have and those of an even spread over most: the statistic of
// Kolmogorov and Smirnov. It sorts waits.
func unevenness(waits []float64, most float64) float64 {
	slices.Sort(waits)
	worst := 0.0
	n := float64(len(waits))
	for i, w := range waits {
		worst = max(worst, math.Abs(float64(i)/n-w/most), math.Abs(float64(i+1)/n-w/most))
	}
	return worst
}
