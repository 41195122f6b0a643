package admin

import (
	"testing"
	"time"
)

// A frame that is larger than the whole bucket is paid for in full: over any time no more is sent than the bucket and what flows into it.
func TestBudget(t *testing.T) {
	var b budget
	began := time.Now()
	now, sent := began, 0
	for i, n := range []int{100_000, 10, 30_000, 6000, 6000, 6000, 200_000, 10} {
		most := float64(bytesAtFirst) + now.Sub(began).Seconds()*bytesPerSecond
		if i > 0 && float64(sent) > most+1 {
			t.Errorf("%d bytes were sent within %v; want at most %.0f", sent, now.Sub(began), most)
		}
		sent += n
		now = now.Add(max(frameEvery, b.spend(now, n)))
	}
	if now = now.Add(time.Hour); b.spend(now, bytesAtFirst) > 0 || b.spend(now, 1) <= 0 {
		t.Error("an hour later the bucket does not hold what it holds at most")
	}
}
