package systemtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

const (
	chaosShort    = 20 * time.Second // unless SELVEDGE_CHAOS says otherwise (make chaos: 60s)
	chaosLong     = 45 * time.Second // from here on each kind of event comes three times, and the figures must be those that we promise
	chaosBackends = 5
	chaosEdges    = 2
	chaosUsers    = 300
	chaosDevices  = 2   // of each user
	chaosPace     = 200 // pushes a second
)

// TestChaos kills, stops, drains, adds, restarts and cuts off real processes under pushes, and has the judge hold what the senders were
// told against what the clients saw. SELVEDGE_CHAOS is its length, SELVEDGE_CHAOS_SEED the order of events to repeat.
func TestChaos(t *testing.T) {
	if os.Getenv(insideVariable) == "" {
		if _, err := binary(); err != nil { // building may need the network
			t.Fatal(err)
		}
		err := inNamespaces(t)
		if err == nil {
			return
		}
		t.Logf("this system lets the test have no namespaces: %v", err)
	}
	chaos(t, chaosLength(t), chaosSeed(t))
}

func chaosLength(t *testing.T) time.Duration {
	text := os.Getenv("SELVEDGE_CHAOS")
	if text == "" {
		return chaosShort
	}
	length, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("SELVEDGE_CHAOS: %v; want a duration, like 60s", err)
	}
	return length
}

func chaosSeed(t *testing.T) uint64 {
	text := os.Getenv("SELVEDGE_CHAOS_SEED")
	if text == "" {
		return rand.Uint64N(1_000_000)
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("SELVEDGE_CHAOS_SEED: %v", err)
	}
	return seed
}

func chaos(t *testing.T, length time.Duration, seed uint64) {
	lan, err := newLAN(t)
	if err != nil {
		t.Logf("NO CUTS: this system lets the test have no network of its own (%v); all runs on loopback", err)
	}
	// Moves are paced fast: a run is short.
	w := newWorld(t, rand.New(rand.NewPCG(seed, 0)), setup{lan, chaosBackends, chaosEdges, 2 * time.Second, 0.5})
	w.connect(userNames(chaosUsers), chaosDevices)

	rounds := 1
	if length >= chaosLong {
		rounds = 3
	}
	plan := newPlan(w.rng, length, rounds, w.lan != nil)
	logZero = time.Now()
	t.Logf("%v of chaos, %d events in the order of SELVEDGE_CHAOS_SEED=%d", length, len(plan), seed)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	w.pushes.wg.Go(func() { w.pushes.steadily(ctx, chaosPace) })
	mark := w.rings.mark()
	starts := w.run(plan, length)
	stop()
	w.pushes.wg.Wait()
	w.last()
	w.clients.close()

	r := &report{
		began: logZero, phases: starts, pushes: w.pushes.log, sessions: w.clients.sessions(), events: w.events,
		leastMoves: w.leastMoves(mark),
	}
	for _, q := range w.silences {
		r.silences = append(r.silences, *q)
	}
	r.judge(t)
	r.print(t)
	r.check(t, length >= chaosLong)
}

// run makes the plan come true, and returns when each phase began. It ends when the time is over and everything is mended.
func (w *world) run(plan []planned, length time.Duration) (starts []time.Time) {
	w.t.Helper()
	began := time.Now()
	overdue := began.Add(length + time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for len(plan) > 0 || len(w.pending) > 0 || time.Since(began) < length {
		<-tick.C
		w.work()
		if len(plan) > 0 && time.Since(began) >= plan[0].at {
			if phase := plan[0].phase; phase == len(starts) {
				starts = append(starts, time.Now())
			}
			plan = w.next(plan)
		}
		if time.Now().After(overdue) {
			w.t.Fatalf("%d events could not happen: %v; %d things are still to be mended", len(plan), plan, len(w.pending))
		}
	}
	return starts
}

// next has the first event of the plan happen that can, of the phase that is on, and returns the rest of the plan. (There may be too few
// undisturbed backends to drain another, until one is added.)
func (w *world) next(plan []planned) []planned {
	for i, p := range plan {
		if p.phase != plan[0].phase {
			break
		}
		if !w.happen(p.kind) {
			continue
		}
		for j := i; j > 0; j-- { // those passed over are next, at the times that they had
			plan[j].kind = plan[j-1].kind
		}
		return plan[1:]
	}
	return plan
}

// lastWithin is how long after the last event each user must be reachable at every device. TCP repeats what a cut swallowed with growing
// pauses.
const lastWithin = 45 * time.Second

// last pushes to each user until every device got one of these pushes. What was sent before on the same connections has arrived then.
func (w *world) last() {
	w.t.Helper()
	var missing []string
	devices := make(map[string][]*client)
	for _, c := range w.clients.list {
		devices[c.user] = append(devices[c.user], c)
	}
	results := make(chan string)
	until := time.Now().Add(lastWithin)
	for _, user := range w.pushes.users {
		go func() { results <- w.reach(user, devices[user], until) }()
	}
	for range w.pushes.users {
		if problem := <-results; problem != "" {
			missing = append(missing, problem)
		}
	}
	if len(missing) > 0 {
		w.t.Errorf("%d users cannot be reached %v after the last event, such as %s", len(missing), lastWithin, missing[0])
	}
}

// reach pushes to user until a push was told to have reached all devices and did. It returns what is wrong at the end.
func (w *world) reach(user string, devices []*client, until time.Time) (problem string) {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		one := w.pushes.push(user, true)
		arrives := time.Now().Add(pause)
		for problem = "-"; problem != "" && time.Now().Before(arrives); time.Sleep(10 * time.Millisecond) {
			problem = ""
			for _, c := range devices {
				if !c.has(one.id) {
					s, _ := c.present()
					problem = fmt.Sprintf("%s: not at %s", one, &s)
				}
			}
		}
		if problem == "" && one.failure == "" && one.sessions == len(devices) {
			return ""
		}
		if time.Now().After(until) {
			if problem == "" {
				problem = fmt.Sprintf("%s: want %d sessions", one, len(devices))
			}
			return problem
		}
	}
}

// leastMoves is how many sessions had to change their backend, by the rings that Consul's catalogue made.
func (w *world) leastMoves(mark int) int {
	n := 0
	for _, changes := range w.rings.changes(mark, w.pushes.users) {
		n += changes * chaosDevices
	}
	return n
}

// quantile of sorted durations; 0 where there are none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func sorted(list []time.Duration) []time.Duration {
	list = slices.Clone(list)
	slices.Sort(list)
	return list
}
