package bench

import (
	"slices"
	"time"
)

const (
	maxSeq     = 1 << 24 // messages in one phase; those above are strays
	maxSamples = 1 << 20 // latencies kept of one phase; later ones are not
)

// Tally is what clients saw of one phase.
type Tally struct {
	Open     int // sessions that are open now
	Messages int // that came, each counted once
	Twice    int // repeats
	Stray    int // of another phase, for another user, or not as they were sent
	// Latencies, from when each message was due until its client had it, in the order of arrival.
	Latencies []time.Duration
	// Problem is the first thing that should not have happened; empty: none.
	Problem string

	phase uint32
	seen  []uint64 // a bit for each seq
}

func (t *Tally) begin(phase uint32) {
	*t = Tally{Open: t.Open, Problem: t.Problem, phase: phase}
}

// take counts a message that came to user's session.
func (t *Tally) take(payload []byte, user uint32, now time.Duration) {
	s, err := decodeStamp(payload)
	switch {
	case err != nil:
		t.Stray++
		t.problem(userName(int(user)) + ": " + err.Error())
		return
	case s.phase != t.phase || s.user != user || s.seq >= maxSeq:
		t.Stray++
		t.problem("a message for " + userName(int(s.user)) + " came to " + userName(int(user)) + ", or late")
		return
	}
	word, bit := int(s.seq/64), uint64(1)<<(s.seq%64)
	if word >= len(t.seen) {
		t.seen = append(t.seen, make([]uint64, word+1-len(t.seen))...)
	}
	if t.seen[word]&bit != 0 {
		t.Twice++
		return
	}
	t.seen[word] |= bit
	t.Messages++
	if s.due > 0 && len(t.Latencies) < maxSamples {
		t.Latencies = append(t.Latencies, now-s.due)
	}
}

func (t *Tally) problem(text string) {
	if t.Problem == "" {
		t.Problem = text
	}
}

// add adds what the clients of another process saw, to whom other users belong.
func (t *Tally) add(other Tally) {
	t.Open += other.Open
	t.Messages += other.Messages
	t.Twice += other.Twice
	t.Stray += other.Stray
	t.Latencies = append(t.Latencies, other.Latencies...)
	t.problem(other.Problem)
}

// quantile returns the value below which the share q of the values lies; 0 of none. It sorts the values.
func quantile(values []time.Duration, q float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[min(len(values)-1, int(q*float64(len(values))))]
}

// median of figures, the mean of the middle two where their number is even; 0 of none.
func median(figures []float64) float64 {
	if len(figures) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(figures))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
