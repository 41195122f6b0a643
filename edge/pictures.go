package edge

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/selvedge/selvedge/internal/admin"
	"github.com/selvedge/selvedge/internal/tunnel"
)

const rememberClosures = 256 // of each service's sessions

// pictures are what the operator's page shows of an edge.
type pictures struct{ e *Edge }

// Services lists what routes name, and what sessions still belong to.
func (p pictures) Services() []string { return slices.Sorted(maps.Keys(p.e.followed())) }

// Follow has the members of a service asked how they are.
func (p pictures) Follow(ctx context.Context, service string) {
	if pool := p.e.pool(service); pool != nil {
		pool.questions.watch(ctx)
	}
}

// Picture shows a service as this edge sees it.
func (p pictures) Picture(service string) (*admin.Picture, bool) {
	pool := p.e.pool(service)
	if pool == nil {
		return nil, false
	}
	out := &admin.Picture{
		Process:  admin.Process{Role: "edge", Name: p.e.cfg.Name, Limit: p.e.sessions.most()},
		Snapshot: pool.view.Snapshot(),
		Stale:    pool.view.Stale(),
		Figures:  pool.tallies.figures(),
		Totals:   pool.totals(),
		Changes:  pool.changes,
		Closures: pool.closures,
	}
	if err := p.e.notReady(); err != nil {
		out.Process.NotReady = err.Error()
	}
	pool.questions.complete(out, time.Now())
	for _, m := range out.Snapshot.Members {
		if pool.outliers.avoids(m) {
			f := out.Figures[m.ID]
			f.Avoided = true
			out.Figures[m.ID] = f
		}
	}
	return out, true
}

// totals are what the metrics count, of the service where they tell services apart.
func (p *pool) totals() admin.Totals {
	m := p.edge.metrics
	out := admin.Totals{
		Sessions:     int(p.open.Load()),
		Upgrades:     admin.Value(m.upgrades.WithLabelValues(p.name, strconv.Itoa(http.StatusSwitchingProtocols))),
		DialFailures: admin.Value(p.dialFailures),
	}
	for _, r := range reasons {
		out.Refusals += admin.Value(m.refusals.WithLabelValues(string(r)))
	}
	for _, r := range tunnel.Reasons() {
		out.Closures += admin.Value(m.closes.WithLabelValues(p.name, r.String()))
	}
	return out
}
