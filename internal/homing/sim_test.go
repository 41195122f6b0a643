package homing_test

import (
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/homing"
)

var (
	simSeeds = flag.Int("sim.seeds", 0, "how many worlds to simulate; 0: some hundred, fewer with the race detector")
	simFirst = flag.Uint64("sim.first", 1, "the first seed")
	simStop  = flag.Int("sim.stop", 5, "how many bad worlds are enough")
	simSeed  = flag.Uint64("sim.seed", 0, "simulate this one world, and print what happens in it with -v")
)

// TestSim has many members, edges, senders and clients live through faults, one world for each seed, and holds what was said against what
// was so.
func TestSim(t *testing.T) {
	if *simSeed > 0 {
		var log io.Writer
		if testing.Verbose() {
			log = os.Stdout
		}
		w := newWorld(*simSeed, log)
		w.run()
		for _, wrong := range w.judge.wrong {
			t.Error(wrong)
		}
		t.Logf("%s\n%v", w.kind.name, w.tally)
		return
	}
	seeds := *simSeeds
	if seeds == 0 {
		seeds = defaultSeeds
	}
	total, bad := simulate(*simFirst, seeds)
	for _, b := range bad {
		t.Error(b)
	}
	t.Logf("%d worlds\n%v", seeds, total)
	if seeds < defaultSeeds || len(bad) > 0 {
		return
	}
	for _, what := range reached {
		if total[what] == 0 {
			t.Errorf("never reached: %s", what)
		}
	}
	for _, kind := range []string{"calm", "clean"} { // nobody was harmed: a push that is left unsettled is a fault of ours
		if pushes, certain := total["pushes in a world that is "+kind], total["certain in a world that is "+kind]; certain*100 < pushes*99 {
			t.Errorf("of %d pushes in %s worlds %d were certain", pushes, kind, certain)
		}
	}
}

// A world follows from its seed alone, so that a bad one can be looked at as often as need be.
func TestWorldsReplay(t *testing.T) {
	for seed := uint64(1); seed <= 8; seed++ {
		var sums [2]uint64
		for i := range sums {
			log := fnv.New64a()
			w := newWorld(seed, log)
			w.run()
			sums[i] = log.Sum64()
		}
		if sums[0] != sums[1] {
			t.Errorf("seed %d: two logs differ", seed)
		}
	}
}

// simulate runs so many worlds, as many at once as there are processors, and returns what was counted and what went wrong.
func simulate(first uint64, seeds int) (total tally, bad []string) {
	total = make(tally)
	var mu sync.Mutex
	var next atomic.Uint64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				i := next.Add(1) - 1
				mu.Lock()
				enough := i >= uint64(seeds) || len(bad) >= *simStop
				mu.Unlock()
				if enough {
					return
				}
				w := newWorld(first+i, nil)
				w.run()
				mu.Lock()
				total.add(w.tally)
				total.count("world " + w.kind.name)
				if len(w.judge.wrong) > 0 {
					bad = append(bad, fmt.Sprintf("seed %d (%s):\n\t%s\nreplay: go test ./internal/homing -run TestSim -v -sim.seed=%d",
						w.seed, w.kind.name, strings.Join(w.judge.wrong, "\n\t"), w.seed))
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return total, bad
}

// quiet is the judgement at the end: after a minute without faults nothing of them may be left.
func (j *judge) quiet() {
	w := j.w
	if j.isLost() {
		return
	}
	w.network.lag = func(message) time.Duration { return time.Millisecond } // a call that takes long asks the others, too
	living := w.living()
	for _, m := range living {
		if !m.node.IsServing() {
			j.fail("%s does not serve after a quiet minute; it waits for %v", m.name, m.node.Waiting())
			return
		}
	}
	for _, m := range living {
		known := m.node.Known()
		for _, o := range living {
			if o != m && !contains(known, o.self) {
				j.fail("%s does not know %s", m.name, o.name)
			}
		}
		if m.node.Gossip() != living[0].node.Gossip() {
			j.fail("%s and %s know different members after a quiet minute", m.name, living[0].name)
		}
		if len(known) > len(living)-1 {
			j.fail("%s knows too many: %v", m.name, known)
		}
	}
	for _, u := range w.users {
		for _, c := range u.clients {
			if (c.session == nil) != u.isAway {
				j.fail("a client of %s: session %v", u.name, c.session != nil)
			}
		}
	}
	if w.kind.moves {
		for _, m := range living {
			if left := m.node.Leftover(); left != "" {
				j.fail("%s after a quiet minute: %s", m.name, left)
			}
		}
	}
	for i, u := range w.users {
		for range 2 {
			m := living[w.rand.IntN(len(living))]
			p := payload{kind: pushing, user: u, id: fmt.Sprintf("quiet-%d-%d", i, w.serial), sender: fmt.Sprint("quiet", w.serial)}
			from := j.stamp()
			open := len(j.throughout(u, from+1))
			m.inquire(p, patience, false, func(r result) {
				j.pushed(p, from, r)
				if errors.Is(r.final, homing.ErrFull) && w.kind.places < 100 {
					return
				}
				if !r.certain || len(r.sessions) != open || r.hops > 2 || w.kind.moves && r.asks > 0 {
					j.fail("a push to %s after a quiet minute by %s: certain %v, %d sessions of %d, %d hops, %d asked, %v, not heard of %v",
						u.name, m.name, r.certain, len(r.sessions), open, r.hops, r.asks, r.final, r.silent)
				}
			})
			if w.runUntil(w.now + 2*time.Second); j.isLost() {
				return
			}
		}
	}
}

func contains(list []homing.Peer, p homing.Peer) bool {
	for _, o := range list {
		if o == p {
			return true
		}
	}
	return false
}
