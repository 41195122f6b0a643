package discovery

import (
	"context"
	"math/rand/v2"
	"time"
)

// Waits between failing calls to Consul. Random within the upper half, so that a thousand edges do not come back in one instant.
const (
	backoffFirst = 100 * time.Millisecond
	backoffMost  = 3 * time.Second
)

// backoff is the number of failures in a row.
type backoff int

// next is the wait after one more failure: random between a half and the whole of a span that doubles up to backoffMost.
func (b *backoff) next() time.Duration {
	span := backoffMost
	if *b < 5 {
		span = min(backoffMost, backoffFirst<<*b)
		*b++
	}
	return span/2 + rand.N(span/2+1)
}

// sleep waits for d or ctx's end, whichever comes first, and tells whether ctx is still on.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
