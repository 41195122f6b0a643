package discovery

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/selvedge/selvedge/hashring"
)

// View follows the members of one service. Any number of goroutines may read it.
type View struct {
	service string
	src     Source
	log     *zap.Logger

	current     atomic.Pointer[Snapshot]
	ringChanges atomic.Uint64
	rejected    atomic.Uint64 // reports that made no ring
	ready       chan struct{}

	mu        sync.Mutex
	followers []*follower // replaced, never changed in place: Run walks it without the lock
}

type follower struct {
	changed func(old, new *Snapshot)
	gone    atomic.Bool
}

// NewView returns a view of service with an empty snapshot; [View.Run] fills it, with rings that options make (see
// [Membership.RingOptions]). A nil log is silent.
func NewView(service string, src Source, log *zap.Logger, options ...hashring.Option) *View {
	if log == nil {
		log = zap.NewNop()
	}
	v := &View{
		service: service,
		src:     src,
		log:     log.With(zap.String("service", service)),
		ready:   make(chan struct{}),
	}
	v.current.Store(&Snapshot{Service: service, options: options})
	return v
}

// Run follows the source until ctx ends, then returns nil. Any other end is an error of the source that says what to change.
// It is called once. The last snapshot stays readable.
func (v *View) Run(ctx context.Context) error {
	err := v.src.Watch(ctx, v.service, v.update)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Snapshot returns the newest snapshot: never nil, empty before the first report. It costs one atomic load.
func (v *View) Snapshot() *Snapshot {
	return v.current.Load()
}

// Ready is closed once the source has reported for the first time, be it that there is no member.
func (v *View) Ready() <-chan struct{} {
	return v.ready
}

// RingChanges counts the rings that have come into force: changes of the ring's members or weights, the first ring included.
func (v *View) RingChanges() uint64 {
	return v.ringChanges.Load()
}

// Stale tells whether the registry cannot be read now, so that the snapshot is older than it should be.
func (v *View) Stale() bool { return troubleOf(v.src, v.service).stale }

// Subscribe has fn called at every change of members, in order, on the goroutine that runs the view, which waits for it: fn must
// not block. Snapshot already returns new then. To miss nothing, subscribe first and read [View.Snapshot] after. No call
// begins after cancel has returned; one that is under way on another goroutine may still be finishing.
func (v *View) Subscribe(fn func(old, new *Snapshot)) (cancel func()) {
	f := &follower{changed: fn}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.followers = append(slices.Clip(v.followers), f)
	return func() {
		f.gone.Store(true)
		v.mu.Lock()
		defer v.mu.Unlock()
		v.followers = slices.DeleteFunc(slices.Clone(v.followers), func(g *follower) bool { return g == f })
	}
}

// update is called by the source, never concurrently.
func (v *View) update(members []Member) {
	old := v.current.Load()
	next, err := old.successor(members)
	if err != nil {
		v.rejected.Add(1)
		v.log.Error("the members reported make no ring; the last ones stay in force", zap.Error(err))
		return
	}
	if next != old {
		v.current.Store(next)
		if next.Ring != old.Ring {
			v.ringChanges.Add(1)
			v.log.Info("ring changed",
				zap.Int("members", next.Ring.Len()), zap.Int("known", len(next.Members)), zap.String("digest", next.Ring.Digest()))
		}
	}
	select {
	case <-v.ready:
	default:
		close(v.ready)
	}
	if next == old {
		return
	}
	v.mu.Lock()
	followers := v.followers
	v.mu.Unlock()
	for _, f := range followers {
		if !f.gone.Load() {
			f.changed(old, next)
		}
	}
}
