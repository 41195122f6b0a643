package sender

import (
	"testing"
	"time"
)

// take takes from b until it is empty.
func drain(b *budget, now time.Time) (taken int) {
	for b.take(now) {
		taken++
	}
	return taken
}

func TestBudget(t *testing.T) {
	var b budget
	now := time.Now()
	for range 1_000 {
		b.earn() // a full bucket takes in no more
	}
	if n := drain(&b, now); n != budgetMost {
		t.Errorf("%d retries at first, want %d", n, budgetMost)
	}
	for range 50 {
		b.earn()
	}
	if n := drain(&b, now); n != 10 {
		t.Errorf("%d retries after 50 calls, want 10", n)
	}
	now = now.Add(1500 * time.Millisecond)
	if n := drain(&b, now); n != 15 {
		t.Errorf("%d retries after 1.5 quiet seconds, want 15", n)
	}
	if n := drain(&b, now.Add(time.Hour)); n != budgetMost {
		t.Errorf("%d retries after a quiet hour, want %d", n, budgetMost)
	}
}
