package discovery

import (
	"slices"
	"time"

	"go.uber.org/zap"
)

// judge decides what members' health means for the ring, whoever has found it out: Consul or checks of our own. It belongs to the goroutine
// that watches.
type judge struct {
	log            *zap.Logger
	update         func([]Member)
	counters       *counters
	panicThreshold float64

	members  []Member // as reported last, one per id
	damping  damping
	damped   time.Time // when the first member that has to wait comes in; zero: nobody waits
	panicked bool
	reported bool     // update was called
	inForce  []Member // what it was called with last
}

// hear takes in what is reported of the members, and decides.
func (j *judge) hear(now time.Time, members []Member) {
	j.members = members
	for _, id := range j.damping.note(now, members) {
		c := j.damping.members[id]
		j.log.Warn("a member comes back too often; it stays out of the ring for a while", zap.String("member", id),
			zap.Duration("for", c.until.Sub(now)), zap.Int("times", c.waits))
	}
	j.counters.flaps.Store(j.damping.returns)
	j.decide(now)
}

// decide tells the members that are in force now where that is news. The clock alone can make it so: see damped.
func (j *judge) decide(now time.Time) {
	members := slices.Clone(j.members)
	for i := range members {
		members[i].Override = NotOverridden
	}
	panics := keepCritical(members, j.panicThreshold, j.damping.proven)
	if panics != j.panicked {
		if j.panicked = panics; panics {
			j.log.Warn("too many members are critical for that to be believed; they stay in the ring",
				zap.Int("members", len(members)), zap.Float64("panic_threshold", j.panicThreshold))
		} else {
			j.log.Info("enough members are healthy again; health is believed")
		}
	}
	j.damped = time.Time{}
	if !panics { // in a panic everybody is welcome
		j.damped = j.damping.holdOut(now, members, j.panicThreshold)
	}
	if j.reported && slices.Equal(members, j.inForce) {
		return
	}
	j.reported, j.inForce = true, members
	j.update(slices.Clone(members))
}
