package discovery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	// checksAtOnce bounds the checks of one service that are under way, and with them the descriptors they take.
	checksAtOnce = 128
	// checkGap is how long what checks find is collected: a network that fails takes many members out, and each ring costs its making.
	checkGap = 50 * time.Millisecond
)

// DialFunc opens a connection to a member.
type DialFunc func(ctx context.Context, m Member) (net.Conn, error)

// CheckConfig is how a [Checked] source checks. Where HealthCheck is off it passes on what its source says.
type CheckConfig struct {
	HealthCheck
	PanicThreshold float64  // share of members that must be healthy for checks to be believed, 0 (off) to 1
	Dial           DialFunc // nil: to the member's Addr, without TLS
}

// Checked is a source whose members this process checks itself. Who fails is [Critical], and out of the ring; DESIGN.md says whom it checks and
// what its word means.
type Checked struct {
	src      Source
	log      *zap.Logger
	cfg      atomic.Pointer[CheckConfig]
	changed  chan struct{} // room for one
	counters counters
}

// Check returns src with its members checked, once [Checked.Configure] has said how. It is for services none of whose members is ours; see
// [Checkable].
func Check(src Source, log *zap.Logger) *Checked {
	if log == nil {
		log = zap.NewNop()
	}
	c := &Checked{src: src, log: log, changed: make(chan struct{}, 1)}
	c.cfg.Store(new(CheckConfig))
	return c
}

// Configure has members checked by cfg, which is valid, from now on. It may be called at any time; members stay as they are until they have been
// checked in the new way.
func (c *Checked) Configure(cfg CheckConfig) {
	if cfg.Dial == nil {
		cfg.Dial = func(ctx context.Context, m Member) (net.Conn, error) {
			network, addr := Network(m.Addr)
			return new(net.Dialer).DialContext(ctx, network, addr)
		}
	}
	if cfg.On() {
		cfg.HealthCheck = cfg.withDefaults()
	}
	c.cfg.Store(&cfg)
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// Checkable tells why members must not be checked by one process alone: one of them is ours, and takes the list for the ring as it stands.
func Checkable(members []Member) error {
	for _, m := range members {
		if m.RPCAddr != "" {
			return fmt.Errorf("member %q has an RPC port: such members know the ring from the same list, and a check of one edge "+
				"would make its ring another than theirs; remove health_check (an edge passes over who does not answer), or use Consul", m.ID)
		}
	}
	return nil
}

func (c *Checked) trouble(service string) trouble {
	t, own := troubleOf(c.src, service), c.counters.read()
	t.flaps += own.flaps
	t.failedChecks = own.failedChecks
	return t
}

// Watch reports the source's members with the health that was found. The first report waits until each has been checked once, or for twice
// the timeout; who has not been checked by then counts as healthy.
func (c *Checked) Watch(ctx context.Context, service string, update func([]Member)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()

	reports := make(chan []Member)
	ended := make(chan error, 1)
	wg.Go(func() {
		ended <- c.src.Watch(ctx, service, func(members []Member) {
			select {
			case reports <- members:
			case <-ctx.Done():
			}
		})
	})
	w := checks{
		judge:    judge{log: c.log.With(zap.String("service", service)), update: update, counters: &c.counters},
		subjects: make(map[string]*subject),
	}
	results := make(chan checkResult)
	places := make(chan struct{}, checksAtOnce)
	w.follow = func(s *subject, m Member) {
		var watching context.Context
		watching, s.stop = context.WithCancel(ctx)
		cfg := w.cfg
		wg.Go(func() { cfg.follow(watching, s, m, places, results) })
	}
	w.configure(time.Now(), *c.cfg.Load())
	clock := time.NewTimer(0)
	defer clock.Stop()
	for {
		select {
		case members := <-reports:
			w.take(time.Now(), members)
		case <-c.changed:
			w.configure(time.Now(), *c.cfg.Load())
		case r := <-results:
			w.note(time.Now(), r)
		case <-clock.C:
			w.tick(time.Now())
		case err := <-ended:
			return err
		}
		if next := w.next(); next.IsZero() {
			clock.Stop()
		} else {
			clock.Reset(max(time.Until(next), time.Millisecond))
		}
	}
}

// follow checks m again and again until ctx ends.
func (c CheckConfig) follow(ctx context.Context, s *subject, m Member, places chan struct{}, results chan<- checkResult) {
	for {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		began := time.Now()
		err := c.probe(ctx, m, c.Dial)
		<-places
		if ctx.Err() != nil {
			return
		}
		select {
		case results <- checkResult{s, err}:
		case <-ctx.Done():
			return
		}
		interval := c.Interval*9/10 + rand.N(c.Interval/5+1) // so that the checks of many edges do not come together
		if !sleep(ctx, interval-time.Since(began)) {
			return
		}
	}
}

// checks is what a watch of a [Checked] source knows. It belongs to the goroutine that watches.
type checks struct {
	judge
	cfg    CheckConfig
	follow func(*subject, Member) // begins to check

	listed   []Member // by the source
	subjects map[string]*subject
	deadline time.Time // for the first report; zero: the source has not said anything
	begun    bool      // the first report was made
	due      time.Time // when what checks have found since is told; zero: nothing new

	unchecked bool  // the last report said what the source says
	ours      error // why nobody is checked, though they were to be
}

// subject is a member that is checked, at one address.
type subject struct {
	id, addr string
	stop     context.CancelFunc
	known    bool // a check of this address has ended
	up       bool
	streak   int // results in a row that speak against up
}

type checkResult struct {
	of  *subject
	err error // nil: it is well
}

// configure begins to check in another way. The judge forgets what the old one has found.
func (w *checks) configure(now time.Time, cfg CheckConfig) {
	w.cfg = cfg
	w.judge = judge{log: w.log, update: w.update, counters: w.counters, panicThreshold: cfg.PanicThreshold}
	for _, s := range w.subjects {
		s.addr = "" // is checked anew
	}
	if !w.deadline.IsZero() {
		w.take(now, w.listed)
	}
}

// take takes in what the source says.
func (w *checks) take(now time.Time, members []Member) {
	w.listed = members
	if w.deadline.IsZero() {
		w.deadline = now.Add(2 * w.cfg.Timeout)
	}
	was := w.ours
	w.ours = nil
	if w.cfg.On() {
		w.ours = Checkable(members)
	}
	if w.ours != nil && was == nil {
		w.log.Error("members are not checked", zap.Error(w.ours))
	}
	if w.ours != nil || !w.cfg.On() {
		members = nil
	}
	present := make(map[string]bool, len(members))
	for _, m := range members {
		present[m.ID] = true
		old := w.subjects[m.ID]
		if old != nil && old.addr == m.Addr {
			continue
		}
		s := &subject{id: m.ID, addr: m.Addr}
		switch {
		case old != nil: // it goes on as it was until it has been seen at its new address
			s.up = old.up
			old.stop()
		case w.begun && w.unchecked: // it was in the ring
			s.up = true
		}
		w.subjects[m.ID] = s
		w.follow(s, m)
	}
	for id, s := range w.subjects {
		if !present[id] {
			s.stop()
			delete(w.subjects, id)
		}
	}
	w.tick(now)
}

// note takes in how a check went.
func (w *checks) note(now time.Time, r checkResult) {
	s := r.of
	if w.subjects[s.id] != s {
		return // it is gone, or elsewhere
	}
	if failed := (*checkError)(nil); errors.As(r.err, &failed) {
		w.counters.failedChecks[failed.reason].Add(1)
	}
	first, before := !s.known, s.up
	s.note(r.err == nil, w.cfg.Rise, w.cfg.Fall)
	switch {
	case s.up == before && (s.up || !first), first && s.up && !w.begun:
	case s.up:
		w.log.Info("a member passes its health check", zap.String("member", s.id), zap.String("addr", s.addr))
	default:
		w.log.Warn("a member fails its health check", zap.String("member", s.id), zap.String("addr", s.addr), zap.Error(r.err))
	}
	switch {
	case !w.begun:
		w.tick(now)
	case s.up != before && w.due.IsZero():
		w.due = now.Add(checkGap)
	}
}

// note counts a result. The first one at an address decides alone: nothing is known that it could be held against.
func (s *subject) note(well bool, rise, fall int) {
	switch {
	case !s.known:
		s.known, s.up, s.streak = true, well, 0
	case well == s.up:
		s.streak = 0
	default:
		if s.streak++; s.up && s.streak >= fall || !s.up && s.streak >= rise {
			s.up, s.streak = well, 0
		}
	}
}

// tick decides what is in force now.
func (w *checks) tick(now time.Time) {
	if w.deadline.IsZero() {
		return
	}
	if !w.begun {
		for _, s := range w.subjects {
			if !s.known && now.Before(w.deadline) {
				return
			}
		}
		w.begun = true
		for _, s := range w.subjects {
			s.up = s.up || !s.known // an edge must have a ring
		}
	}
	w.due = time.Time{}
	members := slices.Clone(w.listed)
	if w.unchecked = w.ours != nil || !w.cfg.On(); w.unchecked {
		w.damped = time.Time{}
		w.update(members)
		return
	}
	for i := range members {
		if s := w.subjects[members[i].ID]; s != nil && !s.up {
			members[i].Health = Critical
		}
	}
	w.hear(now, members)
}

// next is when the clock alone changes something; zero: it does not.
func (w *checks) next() time.Time {
	switch {
	case !w.begun:
		return w.deadline
	case w.due.IsZero() || !w.damped.IsZero() && w.damped.Before(w.due):
		return w.damped
	}
	return w.due
}
