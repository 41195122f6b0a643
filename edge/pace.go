package edge

import (
	"time"

	"golang.org/x/time/rate"
)

// pace is how fast upgrades are let in. A hundredth of a second's worth come in at once. Those beyond wait for their turn, so that a storm
// reaches the backends as a stream; who would have to wait longer than paceQueue is refused.
type pace struct{ limiter *rate.Limiter }

// paceQueue is also how many wait at most: as many as are let in meanwhile.
const paceQueue = time.Second

func newPace() pace { return pace{rate.NewLimiter(rate.Inf, 1)} }

// set lets n upgrades in in a second; 0: as many as come.
func (p pace) set(n float64) {
	if n == 0 {
		p.limiter.SetLimit(rate.Inf)
		return
	}
	p.limiter.SetBurst(max(1, int(n/100)))
	p.limiter.SetLimit(rate.Limit(n))
}

// enter takes the next turn, and says how long it is until then; false: too long, and no turn is taken.
func (p pace) enter() (wait time.Duration, ok bool) {
	now := time.Now()
	turn := p.limiter.ReserveN(now, 1)
	if wait = turn.DelayFrom(now); wait > paceQueue {
		turn.CancelAt(now)
		return 0, false
	}
	return wait, true
}

// isCrowded tells whether who comes now has to wait for nearly as long as anybody may, or too long.
func (p pace) isCrowded() bool {
	limit := p.limiter.Limit()
	return limit != rate.Inf && p.limiter.Tokens() < 1-0.9*float64(limit)*paceQueue.Seconds()
}
