package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/selvedge/selvedge/hashring"
)

// figures are what is measured of one contender.
type figures struct {
	Name  string `json:"name"`
	About string `json:"about"`
	Exact bool   `json:"exact_shares"` // else keys were counted, and their noise is in the balance

	Peak100 float64  `json:"peak_to_mean_100"` // of 100 equal members, mean of the sets
	Peak10  float64  `json:"peak_to_mean_10"`
	Off     *float64 `json:"worst_off_weight,omitempty"` // share against weight, worst of 100 members of weights 1 to 10 in all sets; nil: knows no weights

	// Keys that moved though both members were there before and after, of all keys, on average of the changes.
	BetweenOnAdd    float64 `json:"between_survivors_on_add"`
	BetweenOnRemove float64 `json:"between_survivors_on_remove"`

	OwnerNS float64 `json:"owner_ns"` // median of the rounds
	Allocs  float64 `json:"owner_allocs"`
	AddMS   float64 `json:"add_ms"`         // one member added to 100, median of the rounds
	AddCold float64 `json:"add_cold_ms"`    // the same, of the first one in each round: caches hold other things
	Rebuilt bool    `json:"add_is_a_build"` // the table was built anew
	KiBEach float64 `json:"kib_per_member"` // 100 members
}

// sizes say how much work a run is.
type sizes struct {
	sets, weightSets int
	sample100        int // keys that are counted where shares are not exact
	sample10         int
	moveKeys         int
	changes          int // members added, and removed, one at a time
	keys, rounds     int // of Owner
	addRounds        int
	large            int // members of the large ring
}

var (
	fullSize  = sizes{30, 10, 1_000_000, 250_000, 100_000, 10, 1_000_000, 7, 15, 1000}
	shortSize = sizes{2, 1, 5_000, 5_000, 2_000, 4, 5_000, 2, 2, 20}
)

// equal returns n members of weight 1; set makes their ids differ from those of other sets.
func equal(set, n int) []member {
	members := make([]member, n)
	for i := range members {
		members[i] = member{fmt.Sprintf("set%d-member%d", set, i), 1}
	}
	return members
}

// randomKeys returns n ids of 16 bytes, side by side in memory as a request buffer would hold them.
func randomKeys(n int) []string {
	rng := rand.New(rand.NewPCG(1, 2))
	all := make([]byte, 0, n*16)
	for range n {
		all = fmt.Appendf(all, "%016x", rng.Uint64())
	}
	text, keys := string(all), make([]string, n)
	for i := range keys {
		keys[i] = text[i*16 : i*16+16]
	}
	return keys
}

func measure(list []contender, size sizes, say func(what string)) []figures {
	keys := randomKeys(max(size.keys, size.sample100, size.sample10, size.moveKeys))
	all := make([]figures, len(list))
	for i, c := range list {
		say("balance and moves: " + c.name)
		f := figures{Name: c.name, About: c.about}
		f.Peak100, f.Exact = c.peak(100, size.sets, keys[:size.sample100])
		f.Peak10, _ = c.peak(10, size.sets, keys[:size.sample10])
		if c.weights {
			off := c.offWeight(size.weightSets, keys[:size.sample100])
			f.Off = &off
		}
		f.BetweenOnAdd, f.BetweenOnRemove = c.between(size.changes, keys[:size.moveKeys])
		f.KiBEach = c.memory(100)
		all[i] = f
	}
	say("time of Owner")
	owners(list, all, keys[:size.keys], size.rounds)
	say("time to add a member")
	adds(list, all, size.addRounds)
	return all
}

// sharesOf returns each member's share of the hash space, or of keys where the table cannot tell.
func sharesOf(t table, keys []string) (shares map[string]float64, exact bool) {
	if t.shares != nil {
		return t.shares(), true
	}
	shares = make(map[string]float64)
	for _, key := range keys {
		shares[t.owner(key)]++
	}
	for id := range shares {
		shares[id] /= float64(len(keys))
	}
	return shares, false
}

// peak returns the largest share over the mean one, on average of the sets.
func (c contender) peak(members, sets int, keys []string) (mean float64, exact bool) {
	peaks := make([]float64, sets)
	inParallel(sets, func(set int) {
		shares, ok := sharesOf(c.build(equal(set, members)), keys)
		if set == 0 {
			exact = ok
		}
		for _, s := range shares {
			peaks[set] = max(peaks[set], s*float64(members))
		}
	})
	for _, p := range peaks {
		mean += p / float64(sets)
	}
	return mean, exact
}

// offWeight returns by how much the worst share of all sets is off what the weight entitles to.
func (c contender) offWeight(sets int, keys []string) float64 {
	worst := make([]float64, sets)
	inParallel(sets, func(set int) {
		members := equal(set, 100)
		total := 0
		for i := range members {
			members[i].weight = 1 + i%10
			total += members[i].weight
		}
		shares, _ := sharesOf(c.build(members), keys)
		for _, m := range members {
			due := float64(m.weight) / float64(total)
			worst[set] = max(worst[set], math.Abs(shares[m.id]/due-1))
		}
	})
	return slices.Max(worst)
}

// between counts keys that move between members that stay, while 100 members become more one by one, and then each one
// that stands in the middle of what is left goes.
func (c contender) between(changes int, keys []string) (onAdd, onRemove float64) {
	members := equal(0, 100+changes)
	steps := [][]member{}
	for n := range changes + 1 {
		steps = append(steps, members[:100+n])
	}
	for range changes {
		last := steps[len(steps)-1]
		middle := len(last) / 2
		steps = append(steps, slices.Delete(slices.Clone(last), middle, middle+1))
	}
	was := make([]string, len(keys))
	is := make([]string, len(keys))
	for s, step := range steps {
		t := c.build(step)
		there := make(map[string]bool)
		for _, m := range step {
			there[m.id] = true
		}
		moved := 0
		for i, key := range keys {
			is[i] = t.owner(key)
			// Who comes is not among those that stay, and who goes is not there any more.
			came := s > 0 && s <= changes && is[i] == step[len(step)-1].id
			if s > 0 && is[i] != was[i] && there[was[i]] && !came {
				moved++
			}
		}
		if part := float64(moved) / float64(len(keys)) / float64(changes); s <= changes {
			onAdd += part
		} else {
			onRemove += part
		}
		was, is = is, was
	}
	return onAdd, onRemove
}

func (c contender) memory(members int) float64 {
	in := equal(0, members)
	before := heap()
	t := c.build(in)
	used := heap() - before
	runtime.KeepAlive(t)
	return max(0, float64(used)) / float64(members) / 1024 // next to nothing may come out below 0
}

// heap returns the bytes that are in use.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// owners measures Owner in rounds in which all take their turn, so that what else the machine does meets all of them alike.
func owners(list []contender, all []figures, keys []string, rounds int) {
	tables := make([]table, len(list))
	times := make([][]float64, len(list))
	for i, c := range list {
		tables[i] = c.build(equal(0, 100))
	}
	for round := range rounds + 1 { // the first one warms up, and counts allocations
		for i := range list {
			owner := tables[i].owner
			var before, after runtime.MemStats
			if round == 0 {
				runtime.ReadMemStats(&before)
			}
			start, sink := time.Now(), 0
			for _, key := range keys {
				sink += len(owner(key))
			}
			took := time.Since(start)
			runtime.KeepAlive(sink)
			if round == 0 {
				runtime.ReadMemStats(&after)
				// A few objects are the runtime's own.
				all[i].Allocs = math.Round(float64(after.Mallocs-before.Mallocs)/float64(len(keys))*10) / 10
				continue
			}
			times[i] = append(times[i], float64(took.Nanoseconds())/float64(len(keys)))
		}
	}
	for i := range list {
		all[i].OwnerNS = median(times[i])
	}
}

// addsAtOnce is how many members are added in each round, one after the other.
const addsAtOnce = 5

// adds measures one member added to 100, in rounds as well. What can be added to in place grows by a few members; for the
// others it is always the 101st.
func adds(list []contender, all []figures, rounds int) {
	times, cold := make([][]float64, len(list)), make([][]float64, len(list))
	for range rounds {
		for i, c := range list {
			members := equal(0, 100)
			t := c.build(members)
			all[i].Rebuilt = t.add == nil
			runtime.GC()
			for n := range addsAtOnce {
				m := member{fmt.Sprintf("more%d", n), 1}
				more := slices.Concat(members, []member{m})
				start := time.Now()
				if t.add != nil {
					t.add(m)
				} else {
					t = c.build(more)
				}
				took := float64(time.Since(start).Nanoseconds()) / 1e6
				times[i] = append(times[i], took)
				if n == 0 {
					cold[i] = append(cold[i], took)
				}
			}
			runtime.KeepAlive(t)
		}
	}
	for i := range list {
		all[i].AddMS, all[i].AddCold = median(times[i]), median(cold[i])
	}
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

// large is what can be said of our ring alone.
type large struct {
	members int
	bytes   float64
	between int // ranges that moved between survivors on 10 adds and 10 removals, exactly
}

func largeRing(members int) (large, error) {
	before := heap()
	r := ours(equal(0, members))
	l := large{members: members, bytes: float64(heap() - before)}
	runtime.KeepAlive(r)

	now := ours(equal(0, 100))
	for i := range 10 {
		id := fmt.Sprintf("more%d", i)
		more, err := now.With(hashring.Member{ID: id, Weight: 1 + i})
		if err != nil {
			return l, err
		}
		for _, m := range hashring.Diff(now, more) {
			if m.To != id {
				l.between++
			}
		}
		gone := fmt.Sprintf("set0-member%d", i)
		now = more.Without(gone)
		for _, m := range hashring.Diff(more, now) {
			if m.From != gone {
				l.between++
			}
		}
	}
	return l, nil
}

// inParallel does 0 to n-1 on as many processors as there are.
func inParallel(n int, do func(i int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range next {
				do(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}
