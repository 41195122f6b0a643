package backend

import (
	"context"
	"time"

	"github.com/selvedge/selvedge/internal/admin"
)

// pictures are what the operator's page shows of a member: the ring as it sees it, and its own figures. How the others are is theirs to
// tell; an edge's page asks them all.
type pictures struct{ b *Backend }

// Services is the one that it belongs to.
func (p pictures) Services() []string { return []string{p.b.cfg.Service} }

// Follow has nothing to find out.
func (p pictures) Follow(context.Context, string) {}

// Picture shows the member at this moment.
func (p pictures) Picture(service string) (*admin.Picture, bool) {
	b := p.b
	if service != b.cfg.Service {
		return nil, false
	}
	out := &admin.Picture{
		Process:  admin.Process{Role: "backend", Name: b.cfg.ID, Limit: b.cfg.Limits.Sessions},
		Snapshot: b.view.Snapshot(),
		Stale:    b.view.Stale(),
		Totals:   admin.Totals{Sessions: b.table.len()},
		Changes:  b.changes,
		Closures: b.closures,
	}
	if err := b.isReady(); err != nil {
		out.Process.NotReady = err.Error()
	}
	for reason := range closeReasons {
		out.Totals.Closures += admin.Value(b.metrics.closes.WithLabelValues(CloseReason(reason).String()))
	}
	out.Figures = map[string]admin.Figures{b.cfg.ID: {
		Own: b.table.len(), Told: true, Sessions: b.table.len(), Misplaced: int(b.misplaced.Load()), PushesPerSecond: b.pushRate.perSecond(),
		Moves: admin.Value(b.metrics.moves), QueueBytes: admin.Value(b.metrics.queueBytes), State: b.state().String(),
		Digest: b.home.ring().Digest(), Up: time.Since(b.born),
	}}
	return out, true
}
