package hashring

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var compareKeys = flag.Int("compare", fewKeys, "keys of TestCompare; DESIGN.md's table is of 4,000,000")

const fewKeys = 20_000 // enough to see who moves what; times mean nothing then

// A contender maps hashes to members, which are given as hashes of their IDs; owner returns such a hash.
type contender struct {
	name  string
	build func(ids []uint64) (owner func(h uint64) uint64)
	loses bool // moves keys between survivors
}

var contenders = []contender{
	{"this package, 4,096 points", selvedgeRing, false},
	{"ring, 16 points", pointsRing(16), false},
	{"ring, 160 points", pointsRing(160), false},
	{"ring, 1,024 points", pointsRing(1024), false},
	{"ring, 4,096 points, binary search", pointsRing(4096), false},
	{"multi-probe, 21 probes", multiProbe(21), false},
	{"rendezvous", rendezvous, false},
	{"Maglev, 65,537 slots", maglev(65537), true},
	{"jump", jump, true},
	{"bounded load 1.05, 160 points", boundedLoad(160, 1.05), true},
}

// TestCompare prints the table of DESIGN.md: 100 members of weight 1, of which one leaves.
func TestCompare(t *testing.T) {
	const members, leaver = 100, 42
	ids := make([]uint64, members)
	for i := range ids {
		ids[i] = idHash(strconv.Itoa(i))
	}
	fewer := slices.Delete(slices.Clone(ids), leaver, leaver+1)
	rng := rand.New(rand.NewPCG(3, 4))
	keys := make([]uint64, *compareKeys)
	for i := range keys {
		keys[i] = rng.Uint64()
	}
	var table strings.Builder
	peaks := map[string]float64{}
	fmt.Fprintf(&table, "\n| %-34s | peak to mean | moved between survivors | look-up ns | build ms | KiB per member |\n", "")
	for _, c := range contenders {
		before := heap()
		owner := c.build(ids)
		size := max(0, int64(heap())-int64(before))
		runtime.KeepAlive(owner)

		was := make([]uint64, len(keys))
		built, took := time.Hour, time.Hour
		passes := 5 // of which the best counts; each starts anew, for bounded load fills up
		if *compareKeys == fewKeys {
			passes = 1
		}
		for range passes {
			start := time.Now()
			owner = c.build(ids)
			built = min(built, time.Since(start))
			start = time.Now()
			for i, h := range keys {
				was[i] = owner(h)
			}
			took = min(took, time.Since(start))
		}
		owner = c.build(fewer)
		load, moved := map[uint64]int{}, 0
		for i, h := range keys {
			load[was[i]]++
			if is := owner(h); is != was[i] && was[i] != ids[leaver] {
				moved++
			}
		}
		peak := 0
		for _, n := range load {
			peak = max(peak, n)
		}
		peaks[c.name] = float64(peak) * members / float64(len(keys))
		fmt.Fprintf(&table, "| %-34s | %12.3f | %21.2f %% | %10.0f | %8.2f | %14.1f |\n", c.name, peaks[c.name],
			float64(moved)*100/float64(len(keys)), float64(took.Nanoseconds())/float64(len(keys)),
			float64(built.Microseconds())/1000, float64(size)/members/1024)
		if (moved > 0) != c.loses {
			t.Errorf("%s moves %d keys between survivors", c.name, moved)
		}
	}
	t.Log(table.String())
	if ours, ketama := peaks[contenders[0].name], peaks["ring, 160 points"]; ours >= ketama {
		t.Errorf("peak to mean %.3f, no better than %.3f of 160 points", ours, ketama)
	}
}

func selvedgeRing(ids []uint64) func(uint64) uint64 {
	members, byName := make([]Member, len(ids)), map[string]uint64{}
	for i, id := range ids {
		members[i] = Member{strconv.FormatUint(id, 16), 1}
		byName[members[i].ID] = id
	}
	r, err := New(members)
	if err != nil {
		panic(err)
	}
	numbers := make([]uint64, len(ids))
	for i, name := range r.owners {
		numbers[i] = byName[name]
	}
	return func(h uint64) uint64 { return numbers[r.owner(h)] }
}

type ringPoint struct{ at, id uint64 }

func randomPoints(ids []uint64, k int) []ringPoint {
	points := make([]ringPoint, 0, k*len(ids))
	for _, id := range ids {
		for i := range uint64(k) {
			points = append(points, ringPoint{mix(id + i*gamma), id})
		}
	}
	slices.SortFunc(points, func(a, b ringPoint) int {
		if a.at < b.at {
			return -1
		}
		return 1
	})
	return points
}

// after returns the index of the first point at or after h.
func after(points []ringPoint, h uint64) int {
	low, high := 0, len(points)
	for low < high {
		if middle := (low + high) / 2; points[middle].at < h {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low % len(points)
}

func pointsRing(k int) func([]uint64) func(uint64) uint64 {
	return func(ids []uint64) func(uint64) uint64 {
		points := randomPoints(ids, k)
		return func(h uint64) uint64 { return points[after(points, h)].id }
	}
}

// multiProbe is Appleton and O'Reilly's "Multi-probe consistent hashing", 2015: one point for a member, many hashes for
// a key, of which the one closest to its point decides.
func multiProbe(probes int) func([]uint64) func(uint64) uint64 {
	return func(ids []uint64) func(uint64) uint64 {
		points := randomPoints(ids, 1)
		return func(h uint64) (owner uint64) {
			closest := uint64(1<<64 - 1)
			for range probes {
				h = mix(h + gamma)
				if p := points[after(points, h)]; p.at-h < closest {
					owner, closest = p.id, p.at-h
				}
			}
			return owner
		}
	}
}

// rendezvous is Thaler and Ravishankar's highest random weight, 1998.
func rendezvous(ids []uint64) func(uint64) uint64 {
	return func(h uint64) (owner uint64) {
		best := uint64(0)
		for _, id := range ids {
			if score := mix(h ^ id); score >= best {
				owner, best = id, score
			}
		}
		return owner
	}
}

// maglev is the table of Eisenbud and others' "Maglev", 2016: members take turns to claim slots, each in its own order.
func maglev(slots uint64) func([]uint64) func(uint64) uint64 {
	return func(ids []uint64) func(uint64) uint64 {
		table := make([]uint64, slots)
		next := make([]uint64, len(ids))
		for filled := uint64(0); filled < slots; {
			for i, id := range ids {
				for {
					slot := (mix(id) + next[i]*(mix(id+1)%(slots-1)+1)%slots) % slots
					next[i]++
					if table[slot] == 0 {
						table[slot] = id
						break
					}
				}
				if filled++; filled == slots {
					break
				}
			}
		}
		return func(h uint64) uint64 { return table[h%slots] }
	}
}

// jump is Lamping and Veach's "A fast, minimal memory, consistent hash algorithm", 2014. Its members are numbers
// without gaps, so that those after one that left get new numbers.
func jump(ids []uint64) func(uint64) uint64 {
	return func(h uint64) uint64 {
		b, j := int64(-1), int64(0)
		for j < int64(len(ids)) {
			b = j
			h = h*2862933555777941757 + 1
			j = int64(float64(b+1) * (float64(1<<31) / float64(h>>33+1)))
		}
		return ids[b]
	}
}

// boundedLoad is Mirrokni, Thorup and Zadimoghaddam's "Consistent hashing with bounded loads", 2018: a key passes by
// members that are full. Who owns a key thus depends on the keys that came before it.
func boundedLoad(k int, factor float64) func([]uint64) func(uint64) uint64 {
	return func(ids []uint64) func(uint64) uint64 {
		points := randomPoints(ids, k)
		load := map[uint64]int{}
		most := int(factor*float64(*compareKeys)/float64(len(ids))) + 1
		return func(h uint64) uint64 {
			for i := after(points, h); ; i = (i + 1) % len(points) {
				if id := points[i].id; load[id] < most {
					load[id]++
					return id
				}
			}
		}
	}
}
