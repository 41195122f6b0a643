package bench

import (
	"strings"
	"testing"
	"time"
)

func TestTally(t *testing.T) {
	const user = 7
	first, second := stamp{phase: 3, seq: 0, user: user}, stamp{phase: 3, seq: 200, user: user, due: 5 * time.Second}
	changed := second.encode()
	changed[stampBytes-1]++
	for _, c := range []struct {
		name    string
		came    [][]byte
		want    int
		problem string // a part of the error; "": none
	}{
		{"all", [][]byte{first.encode(), second.encode()}, 2, ""},
		{"one lost", [][]byte{first.encode()}, 2, "1 of 2 messages"},
		{"one twice", [][]byte{first.encode(), second.encode(), second.encode()}, 2, "1 came twice"},
		{"for somebody else", [][]byte{first.encode(), stamp{phase: 3, seq: 200, user: 8}.encode()}, 2, "for user-8 came to user-7"},
		{"of a former phase", [][]byte{first.encode(), second.encode(), stamp{phase: 2, seq: 9, user: user}.encode()}, 2, "1 went astray"},
		{"changed", [][]byte{first.encode(), changed}, 2, "was changed at byte 127"},
		{"cut", [][]byte{first.encode(), second.encode()[:100]}, 2, "100 bytes"},
		{"more than were sent", [][]byte{first.encode(), second.encode()}, 1, "2 of 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var tally Tally
			tally.begin(3)
			for _, payload := range c.came {
				tally.take(payload, user, 6*time.Second)
			}
			err := tally.check(c.want)
			if c.problem == "" && err != nil || c.problem != "" && (err == nil || !strings.Contains(err.Error(), c.problem)) {
				t.Errorf("%v; want %q", err, c.problem)
			}
		})
	}
}

// What went wrong in one phase is not forgotten at the beginning of the next.
func TestTallyKeepsProblems(t *testing.T) {
	var tally Tally
	tally.begin(1)
	tally.take([]byte("?"), 0, 0)
	tally.begin(2)
	if tally.check(0) == nil {
		t.Error("forgotten")
	}
}

func TestQuantileAndMedian(t *testing.T) {
	var values []time.Duration
	for i := range 100 {
		values = append(values, time.Duration(100-i)) // 1 to 100
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 51, 0.99: 100, 1: 100} {
		if got := quantile(values, q); got != want {
			t.Errorf("quantile %v is %v; want %v", q, got, want)
		}
	}
	if quantile(nil, 0.5) != 0 || median(nil) != 0 {
		t.Error("of nothing: not 0")
	}
	if got := median([]float64{9, 1, 5}); got != 5 {
		t.Errorf("median of three is %v", got)
	}
	if got := median([]float64{9, 1, 5, 7}); got != 6 {
		t.Errorf("median of four is %v", got)
	}
}
