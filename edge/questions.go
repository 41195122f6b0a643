package edge

import (
	"context"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/admin"
	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/tunnel"
)

const (
	askEach    = time.Second            // each member once in this time,
	askApart   = 200 * time.Millisecond // but no two within this: with more than five members a round takes longer
	askTimeout = 2 * time.Second
)

// questions ask the members of a service how they are, while somebody wants to know: an operator has the page open.
type questions struct {
	pool *pool
	ask  func(ctx context.Context, service string, r *pushv1.StatusRequest) (*pushv1.StatusResponse, error) // nil: nobody is asked

	mu        sync.Mutex
	watchers  int
	stop      context.CancelFunc // ends run; nil while nobody watches
	answers   map[string]*answered
	refused   string // why members do not answer us; "": they do
	cut       uint64 // number of the last of pool.cuts that was looked at
	undecided []admin.Entry[admin.Closure]
}

// answered is what is known of a member by asking. It belongs to one incarnation at one address.
type answered struct {
	of      instance
	asking  bool // a question is under way
	latest  *pushv1.StatusResponse
	at      time.Time // of latest
	since   time.Time // that it does not answer; zero: it does
	unable  bool      // it is of an older release, or not ours, and cannot tell
	closure uint64    // number of the last that it told
	differs time.Time // since when it has had another ring; zero: it has ours
}

func newQuestions(p *pool, ask func(context.Context, string, *pushv1.StatusRequest) (*pushv1.StatusResponse, error)) *questions {
	return &questions{pool: p, ask: ask, answers: make(map[string]*answered)}
}

// watch has members asked until ctx ends.
func (q *questions) watch(ctx context.Context) {
	e := q.pool.edge
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.work.Err() != nil {
		return // the edge stops, and waits for nothing that begins now
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.watchers++; q.watchers == 1 {
		var running context.Context
		running, q.stop = context.WithCancel(e.work)
		e.running.Go(func() { q.run(running) })
	}
	context.AfterFunc(ctx, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.watchers--; q.watchers == 0 {
			q.stop()
		}
	})
}

// run asks one member after the other, and waits for no answer before it asks the next.
func (q *questions) run(ctx context.Context) {
	var asking sync.WaitGroup
	defer asking.Wait()
	tick := time.NewTimer(0)
	defer tick.Stop()
	var round []discovery.Member
	pause := askEach
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if len(round) == 0 {
			if round, pause = q.askable(), askEach; len(round) > 0 {
				pause = max(askApart, askEach/time.Duration(len(round)))
			}
			q.settleCuts()
		}
		if len(round) > 0 {
			if m := round[0]; q.begin(m) {
				asking.Go(func() { q.question(ctx, m) })
			}
			round = round[1:]
		}
		tick.Reset(pause)
	}
}

// askable are the members that can be asked. What is known of others is dropped.
func (q *questions) askable() (list []discovery.Member) {
	snap := q.pool.view.Snapshot()
	q.mu.Lock()
	defer q.mu.Unlock()
	for id, a := range q.answers {
		if m, there := snap.Member(id); !there || instanceOf(m) != a.of {
			delete(q.answers, id)
		}
	}
	if q.ask == nil {
		return nil
	}
	for _, m := range snap.Members {
		if m.RPCAddr != "" {
			list = append(list, m)
		}
	}
	return list
}

// begin reports whether m is to be asked: one question at a time.
func (q *questions) begin(m discovery.Member) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	a := q.answers[m.ID]
	if a == nil {
		a = &answered{of: instanceOf(m)}
		q.answers[m.ID] = a
	}
	begins := !a.asking
	a.asking = true
	return begins
}

// question asks m and notes what it says.
func (q *questions) question(ctx context.Context, m discovery.Member) {
	q.mu.Lock()
	r := &pushv1.StatusRequest{Member: m.ID}
	if a := q.answers[m.ID]; a != nil {
		r.ClosuresAfter = a.closure
	}
	q.mu.Unlock()
	one, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	response, err := q.ask(one, q.pool.name, r)
	now := time.Now()

	q.mu.Lock()
	defer q.mu.Unlock()
	a := q.answers[m.ID]
	if a == nil || a.of != instanceOf(m) {
		return // another process is there now
	}
	a.asking = false
	switch code := connect.CodeOf(err); {
	case err == nil:
		q.refused = ""
		a.latest, a.at, a.since, a.unable = response, now, time.Time{}, false
		q.hear(a, m.ID, now)
	case ctx.Err() != nil: // nobody wants to know any more
	case code == connect.CodeUnauthenticated:
		q.refused = "unauthenticated"
	case code == connect.CodeUnimplemented:
		a.unable = true
	case a.since.IsZero():
		a.since = now
	}
}

// hear takes over what a member told of sessions that ended there, and by which ring it decides. It is called under mu.
func (q *questions) hear(a *answered, id string, now time.Time) {
	for _, c := range a.latest.Closures {
		a.closure = max(a.closure, c.Number)
		q.pool.closures.AddAt(now.Add(-time.Duration(c.AgoMs)*time.Millisecond), admin.Closure{
			Member: id, Reason: c.Reason, By: "backend", User: c.User, Device: c.Device, Lasted: int64(c.LastedMs),
		})
	}
	switch {
	case a.latest.RingDigest == "", a.latest.RingDigest == q.pool.view.Snapshot().Ring.Digest():
		a.differs = time.Time{}
	case a.differs.IsZero():
		a.differs = now
	}
}

// ownWord are the ends that the edge knows better than the member.
var ownWord = map[string]bool{
	tunnel.Failed.String(): true, tunnel.BackendLost.String(): true, tunnel.IdleTimeout.String(): true, tunnel.Drained.String(): true,
	tunnel.Moved.String(): true, tunnel.Expired.String(): true, tunnel.Shutdown.String(): true,
}

// settleCuts shows the ends that this edge saw of sessions whose member does not tell: it is not ours, or has died. One that has answered
// since has told its own, with user and reason.
func (q *questions) settleCuts() {
	q.mu.Lock()
	defer q.mu.Unlock()
	cuts := q.pool.cuts.After(q.cut, rememberClosures)
	if n := len(cuts); n > 0 {
		q.cut = cuts[n-1].Number
	}
	waiting := slices.Concat(q.undecided, cuts)
	q.undecided = nil
	for _, cut := range waiting[max(0, len(waiting)-rememberClosures):] {
		a := q.answers[cut.What.Member]
		switch {
		case ownWord[cut.What.Reason], a == nil, a.unable, a.since.After(cut.At), !a.since.IsZero():
			q.pool.closures.AddAt(cut.At, cut.What)
		case a.at.After(cut.At):
		default:
			q.undecided = append(q.undecided, cut)
		}
	}
}

// complete puts what members have told into a picture.
func (q *questions) complete(p *admin.Picture, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	p.Refused = q.refused
	for id, a := range q.answers {
		f := p.Figures[id]
		f.Silent, f.DigestSince = a.since, a.differs
		if r := a.latest; r != nil && a.since.IsZero() {
			f.Told, f.State, f.Digest = true, r.State, r.RingDigest
			f.Sessions, f.Misplaced = int(r.Sessions), int(r.Misplaced)
			f.PushesPerSecond, f.Moves, f.QueueBytes = r.PushesPerSecond, r.Moves, r.QueueBytes
			f.Up = time.Duration(r.UpMs)*time.Millisecond + now.Sub(a.at)
		}
		p.Figures[id] = f
	}
}
