package ringsim

import (
	"fmt"
	"testing"

	"github.com/selvedge/selvedge/hashring"
)

func ringOf(t *testing.T, weights map[string]int) *hashring.Ring {
	t.Helper()
	var members []hashring.Member
	for id, w := range weights {
		members = append(members, hashring.Member{ID: id, Weight: w})
	}
	r, err := hashring.New(members)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCompare(t *testing.T) {
	type weights = map[string]int
	for _, tt := range []struct {
		name     string
		old, new weights
		flows    int
		minimal  bool // moves the least possible: nobody comes while another one goes
	}{
		{"nothing", weights{"a": 1, "b": 1}, weights{"a": 1, "b": 1}, 0, true},
		{"one comes", weights{"a": 1, "b": 1, "c": 1}, weights{"a": 1, "b": 1, "c": 1, "d": 1}, 3, true},
		{"one goes", weights{"a": 1, "b": 1, "c": 1, "d": 1}, weights{"a": 1, "b": 1, "c": 1}, 3, true},
		{"one gains weight", weights{"a": 1, "b": 1, "c": 1}, weights{"a": 1, "b": 1, "c": 3}, 2, true},
		{"one for another", weights{"a": 1, "b": 1, "c": 1}, weights{"a": 1, "b": 1, "d": 1}, 5, false},
		{"the first", weights{}, weights{"a": 1}, 1, true},
		{"the last", weights{"a": 1}, weights{}, 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			old, new := ringOf(t, tt.old), ringOf(t, tt.new)
			c := Compare(old, new)
			if len(c.Flows) != tt.flows {
				t.Errorf("%d flows, want %d: %v", len(c.Flows), tt.flows, c.Flows)
			}
			// All of it is exact, so that equality is what is asked for.
			gain, sum := map[string]float64{}, 0.0
			for i, f := range c.Flows {
				gain[f.To] += f.Share
				gain[f.From] -= f.Share
				sum += f.Share
				if i > 0 && c.Flows[i-1].Share < f.Share {
					t.Errorf("flow %d is larger than the one before it", i)
				}
			}
			least := 0.0
			for _, id := range []string{"a", "b", "c", "d"} {
				if want := new.Share(id) - old.Share(id); gain[id] != want {
					t.Errorf("%s gains %v by flows, %v by shares", id, gain[id], want)
				}
				least += max(0, old.Share(id)-new.Share(id))
			}
			if old.Len() == 0 {
				least = 1 // nobody has all, and loses it
			}
			if c.Moved != sum || c.Least != least {
				t.Errorf("moved %v and least %v, want %v and %v", c.Moved, c.Least, sum, least)
			}
			if got := c.MovedToLeast(); (got == 1) != tt.minimal || got < 1 {
				t.Errorf("moved %v times the least; the least itself: %v", got, tt.minimal)
			}
		})
	}
}

func ExampleCompare() {
	before, _ := hashring.New([]hashring.Member{{ID: "a", Weight: 1}, {ID: "b", Weight: 1}})
	after, _ := before.With(hashring.Member{ID: "c", Weight: 2})
	change := Compare(before, after)
	fmt.Printf("%.1f %% moves, %.2f times the least possible\n", 100*change.Moved, change.MovedToLeast())
	for _, f := range change.Flows {
		fmt.Printf("%s to %s: %.1f %%\n", f.From, f.To, 100*f.Share)
	}
	// Output:
	// 50.0 % moves, 1.00 times the least possible
	// b to c: 25.2 %
	// a to c: 24.8 %
}
