package hashring

import (
	"math"
	"runtime"
	"testing"
)

// The figures that the package promises. Shares are exact, so that no sampling blurs them; all of these are
// deterministic, but for memory.

// peakToMean returns the largest share over the mean one.
func peakToMean(r *Ring) float64 {
	peak := 0.0
	for _, m := range r.Members() {
		peak = max(peak, r.Share(m.ID))
	}
	return peak * float64(r.Len())
}

func TestPeakToMean(t *testing.T) {
	t.Parallel()
	const sets = 30
	for _, tt := range []struct {
		members int
		most    float64
	}{{10, 1.03}, {100, 1.05}} {
		sum, worst := 0.0, 0.0
		for set := range sets {
			p := peakToMean(mustNew(t, equalMembers(set, tt.members)))
			sum, worst = sum+p, max(worst, p)
		}
		t.Logf("%d members: peak to mean %.4f on average of %d sets, %.4f in the worst", tt.members, sum/sets, sets, worst)
		if sum/sets > tt.most {
			t.Errorf("%d members: peak to mean %.4f, want at most %.2f", tt.members, sum/sets, tt.most)
		}
	}
}

func TestSharesFollowWeights(t *testing.T) {
	t.Parallel()
	const sets = 5
	worst := 0.0
	for set := range sets {
		members := equalMembers(set, 100)
		total := 0
		for i := range members {
			members[i].Weight = 1 + i%10
			total += members[i].Weight
		}
		r := mustNew(t, members)
		for _, m := range members {
			due := float64(m.Weight) / float64(total)
			worst = max(worst, math.Abs(r.Share(m.ID)/due-1))
		}
	}
	t.Logf("100 members of weights 1 to 10, %d sets: worst share is %.2f %% off", sets, worst*100)
	if worst > 0.06 {
		t.Errorf("worst share is %.2f %% off its weight, want at most 6 %%", worst*100)
	}
}

// When a member leaves, its keys spread over all others as evenly as the rest did.
func TestALeaversKeysSpread(t *testing.T) {
	t.Parallel()
	members := equalMembers(0, 20)
	r := mustNew(t, members)
	leaver := members[7].ID
	got := map[string]float64{}
	for _, m := range Diff(r, r.Without(leaver)) {
		got[m.To] += float64(m.End-m.Start) / (1 << 63) / 2
	}
	due := r.Share(leaver) / 19
	for _, m := range members {
		if off := math.Abs(got[m.ID]/due - 1); m.ID != leaver && off > 0.3 {
			t.Errorf("%s takes %.0f %% more or less than its part", m.ID, off*100)
		}
	}
}

func TestMemory(t *testing.T) {
	for _, tt := range []struct {
		members int
		most    float64 // bytes
	}{{10, 10 * 64 << 10}, {100, 100 * 64 << 10}, {1000, 64 << 20}} {
		members := equalMembers(0, tt.members)
		before := heap()
		r := mustNew(t, members)
		used := float64(heap()) - float64(before)
		runtime.KeepAlive(r)
		t.Logf("%d members: %.2f KiB each", tt.members, used/float64(tt.members)/1024)
		if used > tt.most {
			t.Errorf("%d members take %.0f bytes, want at most %.0f", tt.members, used, tt.most)
		}
	}
}
