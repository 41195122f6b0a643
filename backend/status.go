package backend

import (
	"context"
	"sync"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/admin"
	"github.com/selvedge/selvedge/internal/discovery"
)

const (
	rememberClosures = 256 // sessions that ended, for whoever asks
	closuresShown    = 64  // of them in one answer
	closuresAtFirst  = 8   // of them in the first answer to somebody

	rateSeconds = 10 // that a rate is taken over
)

// Status answers how this member is.
func (p pushService) Status(_ context.Context, r *connect.Request[pushv1.StatusRequest]) (*connect.Response[pushv1.StatusResponse], error) {
	if m := r.Msg.Member; m != "" && m != p.b.cfg.ID {
		return nil, p.b.notMe(m)
	}
	return connect.NewResponse(p.b.status(r.Msg.ClosuresAfter)), nil
}

func (b *Backend) status(closuresAfter uint64) *pushv1.StatusResponse {
	out := &pushv1.StatusResponse{
		Member:          b.cfg.ID,
		State:           b.state().String(),
		RingDigest:      b.home.ring().Digest(),
		Sessions:        uint32(b.table.len()),
		Misplaced:       uint32(b.misplaced.Load()),
		Pushes:          b.metrics.pushes(),
		PushesPerSecond: b.pushRate.perSecond(),
		Moves:           admin.Value(b.metrics.moves),
		QueueBytes:      admin.Value(b.metrics.queueBytes),
		UpMs:            uint64(time.Since(b.born).Milliseconds()),
	}
	most := closuresShown
	if closuresAfter == 0 {
		most = closuresAtFirst
	}
	now := time.Now()
	for _, e := range b.closures.After(closuresAfter, most) {
		out.Closures = append(out.Closures, &pushv1.Closure{
			Number: e.Number, AgoMs: uint64(now.Sub(e.At).Milliseconds()), User: e.What.User, Device: e.What.Device,
			Reason: e.What.Reason, LastedMs: uint64(e.What.Lasted),
		})
	}
	return out
}

// state is how this member sees itself, which others learn a moment later.
func (b *Backend) state() discovery.State {
	switch {
	case b.draining.Load():
		return discovery.Draining
	case b.home.isServing():
		return discovery.Serving
	default:
		return discovery.Joining
	}
}

// Drain has this member leave while its process goes on.
func (p pushService) Drain(_ context.Context, r *connect.Request[pushv1.DrainRequest]) (*connect.Response[pushv1.DrainResponse], error) {
	if r.Msg.Member != p.b.cfg.ID {
		return nil, p.b.notMe(r.Msg.Member)
	}
	select {
	case <-p.b.ready:
	default:
		return nil, p.b.rpcError(ErrNotJoined)
	}
	response := &pushv1.DrainResponse{Sessions: uint32(p.b.table.len())}
	select {
	case p.b.leave <- struct{}{}:
		p.b.log.Warn("told to drain; the process goes on until it is stopped", zap.Uint32("sessions", response.Sessions))
	default: // it has been told
	}
	return connect.NewResponse(response), nil
}

func (b *Backend) notMe(member string) error {
	return invalid("this is member %q, and %q is meant; ask that one, or an edge's admin port, which passes it on", b.cfg.ID, member)
}

// meter tells how fast a counter has grown over the last seconds.
type meter struct {
	mu      sync.Mutex
	samples [rateSeconds + 1]uint64 // a ring; the newest stands at n % len
	n       int                     // samples taken
}

// run takes a sample of the counter once a second until ctx ends.
func (m *meter) run(ctx context.Context, counter func() uint64) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		m.sample(counter())
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (m *meter) sample(value uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n++
	m.samples[m.n%len(m.samples)] = value
}

func (m *meter) perSecond() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	seconds := min(m.n-1, rateSeconds)
	if seconds < 1 {
		return 0
	}
	newest, oldest := m.samples[m.n%len(m.samples)], m.samples[(m.n-seconds)%len(m.samples)]
	return float64(newest-oldest) / float64(seconds)
}
