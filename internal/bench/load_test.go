package bench

import (
	"sync"
	"testing"
	"time"
)

// Pushes are due on time though those before them hang: that is what makes a stall show.
func TestPaceKeepsTime(t *testing.T) {
	const n, rate = 100, 1000
	var mu sync.Mutex
	var due []time.Duration
	hang := make(chan struct{})
	time.AfterFunc(50*time.Millisecond, func() { close(hang) })
	err := pace(n, rate, func(s stamp) bool {
		if s.seq < 10 {
			<-hang
		}
		if monotonic() < s.due {
			t.Errorf("push %d was early", s.seq)
		}
		mu.Lock()
		defer mu.Unlock()
		due = append(due, s.due-time.Duration(s.seq)*time.Second/rate)
		return true
	})
	if err != nil || len(due) != n {
		t.Fatalf("%d of %d: %v", len(due), n, err)
	}
	for _, d := range due {
		if d != due[0] {
			t.Fatalf("a push was put off by %v", d-due[0])
		}
	}
}

func TestPaceEnds(t *testing.T) {
	start := time.Now()
	if err := pace(1000, 100, func(stamp) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it went on for %v after it was told to end", took)
	}
}
