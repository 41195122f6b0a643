package edge

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/selvedge/selvedge/internal/discovery"
)

// How long a member is avoided: avoidFirst after the first failure, doubled by each trial that fails, give or take a quarter, so that
// edges do not come back to it together.
const (
	avoidFirst = time.Second
	avoidMost  = 30 * time.Second
)

// outliers are the members of a service that do not answer this edge: they are tried last for a while. What is known of a
// member belongs to its incarnation and its address: a process that was restarted elsewhere begins anew.
type outliers struct {
	log       *zap.Logger
	ejections prometheus.Counter // set before the first failure
	clock     func() time.Time

	mu        sync.Mutex
	trialTime time.Duration        // what one try may take; how long a trial keeps others away
	records   map[instance]*record // at most one for each member
}

// instance is what a record belongs to: a process at an address.
type instance struct {
	id          string
	incarnation uint64
	addr        string
}

func instanceOf(m discovery.Member) instance { return instance{m.ID, m.Incarnation, m.Addr} }

// record is what is known of a member that has been tried.
type record struct {
	answered time.Time // when the last try began that got an answer
	failures int       // ejections in a row; 0: it is well
	decided  time.Time // when it was ejected last, or given its last trial
	until    time.Time // avoided until then
	trial    bool      // one try is under way to find out; others wait until it ends, or until then
}

func newOutliers(log *zap.Logger) *outliers {
	return &outliers{log: log, clock: time.Now, records: make(map[instance]*record)}
}

// expect says how the members are tried from now on.
func (o *outliers) expect(cfg ServiceConfig) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.trialTime = cfg.ConnectTimeout + cfg.ResponseTimeout
}

// admit tells whether m may be tried now rather than last. Once its time has passed, one caller is let through as a trial.
func (o *outliers) admit(m discovery.Member) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := o.records[instanceOf(m)]
	if r == nil || r.failures == 0 {
		return true
	}
	now := o.clock()
	if now.Before(r.until) {
		return false
	}
	r.trial, r.decided, r.until = true, now, now.Add(o.trialTime)
	return true
}

// avoids tells whether m is to be tried last, and takes no trial.
func (o *outliers) avoids(m discovery.Member) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := o.records[instanceOf(m)]
	return r != nil && r.failures > 0 && o.clock().Before(r.until)
}

// answered says that m has answered a try that began at began, whatever it said: it is well.
func (o *outliers) answered(m discovery.Member, began time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := o.records[instanceOf(m)]
	if r == nil {
		r = new(record)
		o.records[instanceOf(m)] = r
	}
	if r.failures > 0 {
		o.log.Info("a member answers again", zap.String("member", m.ID), zap.String("addr", m.Addr))
	}
	if began.After(r.answered) {
		r.answered = began
	}
	r.failures, r.trial, r.until = 0, false, time.Time{}
}

// failed says that m refused the connection of a try that began at began, or did not answer it in time. Tries that began before the last
// decision tell nothing new; nor do those that went to it because all others had failed. And where m has answered one that
// began later, the failure was that request's own.
func (o *outliers) failed(m discovery.Member, began time.Time, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := o.records[instanceOf(m)]
	if r == nil {
		r = new(record)
		o.records[instanceOf(m)] = r
	}
	now := o.clock()
	switch {
	case r.answered.After(began), began.Before(r.decided):
		return
	case r.failures > 0 && !r.trial && now.Before(r.until):
		return
	}
	r.failures++
	r.trial, r.decided = false, now
	avoid := jitter(min(avoidFirst<<min(r.failures-1, 10), avoidMost))
	r.until = now.Add(avoid)
	o.ejections.Inc()
	o.log.Warn("a member does not answer; it is avoided for a while", zap.String("member", m.ID), zap.String("addr", m.Addr),
		zap.Duration("for", avoid), zap.Int("times", r.failures), zap.Error(err))
}

// jitter is d, give or take a quarter.
func jitter(d time.Duration) time.Duration { return d*3/4 + rand.N(d/2+1) }

// ejected is how many members are avoided.
func (o *outliers) ejected() (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.clock()
	for _, r := range o.records {
		if r.failures > 0 && now.Before(r.until) {
			n++
		}
	}
	return n
}

// forget drops what is known of members that are gone. It follows the view.
func (o *outliers) forget(_, now *discovery.Snapshot) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for known := range o.records {
		if m, ok := now.Member(known.id); !ok || instanceOf(m) != known {
			delete(o.records, known)
		}
	}
}
