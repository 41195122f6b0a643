package ringsim

import (
	"context"
	"encoding/hex"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/selvedge/selvedge/hashring"
)

func weights(t *testing.T, text string) (w Weights) {
	t.Helper()
	if err := w.Set(text); err != nil {
		t.Fatal(err)
	}
	return w
}

func run(t *testing.T, cfg Config) *Result {
	t.Helper()
	sim, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r, err := sim.Run(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRun(t *testing.T) {
	r := run(t, Config{Members: 50, Users: 200_000, Kill: 5, Add: 3, Weights: weights(t, "1-5"), Seed: 7})
	if len(r.Steps) != 3 {
		t.Fatalf("%d steps, want 3", len(r.Steps))
	}
	for i, s := range r.Steps {
		if want := []int{50, 45, 48}[i]; s.Members != want || len(s.loads) != want {
			t.Errorf("%s: %d members, want %d", s.Name, s.Members, want)
		}
		if s.BetweenSurvivors != 0 || s.Moved != s.Least || s.MovedToLeast != 1 {
			t.Errorf("%s: %d moved, least %d, %d between survivors", s.Name, s.Moved, s.Least, s.BetweenSurvivors)
		}
		// 200,000 users are 267 for the lightest member: 6 % of noise, and three times that at worst.
		if s.PeakToMean < 1.01 || s.PeakToMean > 1.25 || s.LeastToMean > 0.99 || s.LeastToMean < 0.75 {
			t.Errorf("%s: loads from %.3f to %.3f", s.Name, s.LeastToMean, s.PeakToMean)
		}
	}
	if r.Steps[0].Moved != 0 || r.Steps[1].Moved == 0 || r.Steps[2].Moved == 0 {
		t.Errorf("moved %d, %d, %d", r.Steps[0].Moved, r.Steps[1].Moved, r.Steps[2].Moved)
	}
	// The newcomers, members 51 to 53, go on where the weights were: 1, 2, 3.
	weight := r.Steps[2].Weight - r.Steps[1].Weight
	if weight != 6 {
		t.Errorf("newcomers weigh %d, want 6", weight)
	}
	if got, want := float64(r.Steps[2].Moved), 200_000*6/float64(r.Steps[2].Weight); math.Abs(got/want-1) > 0.1 {
		t.Errorf("newcomers got %v users, want about %.0f", got, want)
	}
}

// The counts are held against users counted one by one, by name.
func TestRunCountsAsOneWouldByHand(t *testing.T) {
	const users = batch + 1000
	cfg := Config{Members: 20, Users: users, Kill: 3, Add: 2, Seed: 3}
	sim, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r, err := sim.Run(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for p, s := range r.Steps {
		ring := sim.phases[p].ring
		count, moved := map[string]int{}, 0
		for b := range uint64(2) {
			rng := rand.New(rand.NewPCG(cfg.Seed, b+1))
			for range min(batch, users-int(b)*batch) {
				x := rng.Uint64()
				id := hex.EncodeToString([]byte{byte(x >> 56), byte(x >> 48), byte(x >> 40), byte(x >> 32),
					byte(x >> 24), byte(x >> 16), byte(x >> 8), byte(x)})
				count[ring.Owner(id)]++
				if p > 0 && sim.phases[p-1].ring.Owner(id) != ring.Owner(id) {
					moved++
				}
			}
		}
		peak := 0
		for _, n := range count {
			peak = max(peak, n)
		}
		if s.PeakUsers != peak || count[s.PeakMember] != peak || s.Moved != moved || s.Ring != ring.Digest() {
			t.Errorf("%s: %d users on %s and %d moved, by hand %d and %d", s.Name, s.PeakUsers, s.PeakMember, s.Moved, peak, moved)
		}
	}
}

// A user counts as moved between survivors where the ring does what ours never does.
func TestBetweenSurvivorsCanBeOtherThanZero(t *testing.T) {
	sim, err := New(Config{Members: 10, Users: 10_000, Kill: 1, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	members := sim.phases[1].ring.Members()
	for i := range members { // a ring that forgets itself: weights that trade places
		members[i].Weight = 1 + i%2*3
	}
	if sim.phases[1].ring, err = hashring.New(members); err != nil {
		t.Fatal(err)
	}
	r, err := sim.Run(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if s := r.Steps[1]; s.BetweenSurvivors == 0 || s.Moved <= s.Least {
		t.Errorf("%d between survivors, %d moved, least %d", s.BetweenSurvivors, s.Moved, s.Least)
	}
}

func TestRunIsTheSameOnAnyNumberOfProcessors(t *testing.T) {
	cfg := Config{Members: 10, Users: 3*batch + 1, Kill: 2, Add: 1, Seed: 9}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	one := run(t, cfg)
	runtime.GOMAXPROCS(4)
	if four := run(t, cfg); !reflect.DeepEqual(one, four) {
		t.Errorf("%+v on one, %+v on four", one, four)
	}
	cfg.Seed++
	if other := run(t, cfg); other.Steps[0].PeakUsers == one.Steps[0].PeakUsers {
		t.Error("the seed changes nothing")
	}
}

func TestProgressAndCancel(t *testing.T) {
	sim, err := New(Config{Members: 3, Users: 10 * batch, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	last := 0
	if _, err := sim.Run(t.Context(), func(n int) {
		if n <= last {
			t.Errorf("progress goes from %d to %d", last, n)
		}
		last = n
	}); err != nil || last != 10*batch {
		t.Errorf("progress ends at %d, %v", last, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, err := sim.Run(ctx, func(int) { cancel() })
	if r != nil || !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "was stopped after") {
		t.Errorf("stopped: %v, %v", r, err)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, tt := range []struct {
		cfg   Config
		names string
	}{
		{Config{Members: 0, Users: 1}, "0 members"},
		{Config{Members: 1, Users: 0}, "0 users"},
		{Config{Members: 3, Users: 1, Kill: 3}, "want 0 to 2"},
		{Config{Members: 3, Users: 1, Kill: -1}, "want 0 to 2"},
		{Config{Members: 3, Users: 1, Add: -1}, "-1 to add"},
		{Config{Members: 65_537, Users: 1}, "at most 65536"},
		{Config{Members: 3, Users: 1, Add: math.MaxInt}, "at most 65536"},
		{Config{Members: 99, Users: 1, Weights: weights(t, "1x90,2x10")}, "weights 1x90,2x10 are for 100 members"},
		{Config{Members: 66, Users: 1, Weights: weights(t, "1000")}, "total weight"},
	} {
		if s, err := New(tt.cfg); s != nil || err == nil || !strings.Contains(err.Error(), tt.names) {
			t.Errorf("%+v: %v; want an error that says %s", tt.cfg, err, tt.names)
		}
	}
}

func BenchmarkRun(b *testing.B) {
	sim, err := New(Config{Members: 1000, Users: 4 * batch, Kill: 10, Add: 5, Seed: 1})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := sim.Run(b.Context(), nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(4*batch), "ns/user")
}
