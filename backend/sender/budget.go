package sender

import (
	"sync"
	"time"
)

// What a sender may repeat: a fifth of its calls, and some more so that a lone call of a quiet process can be repeated to its deadline.
const (
	budgetPerCall   = 0.2 // of a retry, earned by each call's first try
	budgetPerSecond = 10  // retries, whatever the load
	budgetMost      = 10 * budgetPerSecond
)

// budget bounds the retries of one sender, so that members in trouble are not asked several times what they are asked in calm. It
// is a bucket of retries: full at first, which covers the moment after a member's death, and never above budgetMost.
type budget struct {
	mu     sync.Mutex
	spent  float64   // budgetMost less what is left: the zero value is a full bucket
	filled time.Time // until when budgetPerSecond is counted
}

// earn is called at a call's first try.
func (b *budget) earn() {
	b.mu.Lock()
	b.spent = max(0, b.spent-budgetPerCall)
	b.mu.Unlock()
}

// take spends one retry, and is false where there is none.
func (b *budget) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent = max(0, b.spent-budgetPerSecond*now.Sub(b.filled).Seconds())
	b.filled = now
	if b.spent > budgetMost-1 {
		return false
	}
	b.spent++
	return true
}
