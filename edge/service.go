package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/selvedge/selvedge/internal/admin"
	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/identity"
)

// service is how one service is treated under a [live], and the pool of its members, which outlives that. It is immutable.
type service struct {
	*pool
	cfg     ServiceConfig
	secrets *identity.Secrets // nil: nothing is signed
	tls     *tls.Config       // to the members; nil: plain
	mover   *mover            // nil but for MoveClose
	sources *sources
}

// pool is what the edge knows of the members of one service, for as long as routes name it. Its view and ring are its own: nothing here is
// shared between services.
type pool struct {
	name         string
	checked      *discovery.Checked
	view         *discovery.View
	edge         *Edge
	outliers     *outliers
	tallies      tallies
	changes      *admin.Changes
	closures     *admin.Journal[admin.Closure] // sessions that have ended, as the page shows them
	cuts         *admin.Journal[admin.Closure] // the same as this edge saw them end
	questions    *questions
	open         atomic.Int64 // sessions
	toMove       atomic.Int64 // of them, those that the mover is to close
	departed     atomic.Bool  // no route names it any more: it is here for its sessions
	dialFailures prometheus.Counter
	upgrades     prometheus.Counter  // that got their 101
	upgradeTime  prometheus.Observer // of those
	log          *zap.Logger

	early bool               // it was there when the edge began to run; written before that
	stop  context.CancelFunc // ends following the members; nil before Run; under Edge.mu
}

func newPool(e *Edge, name string, cfg Config) (*pool, error) {
	log := cfg.Logger
	src, err := cfg.Membership.Open(name, log)
	if err == nil && cfg.StateDir != "" {
		src, err = discovery.Remember(src, cfg.StateDir, log)
	}
	if err != nil {
		return nil, err
	}
	checked := discovery.Check(discovery.Resolve(src, log), log)
	p := &pool{
		name:    name,
		checked: checked,
		view:    discovery.NewView(name, checked, log, cfg.Membership.RingOptions(name)...),
		log:     log.With(zap.String("service", name)),
		edge:    e,

		closures: admin.NewJournal[admin.Closure](rememberClosures),
		cuts:     admin.NewJournal[admin.Closure](rememberClosures),
	}
	p.outliers = newOutliers(p.log)
	p.view.Subscribe(p.outliers.forget)
	p.view.Subscribe(p.tallies.forget)
	p.changes = admin.NewChanges(p.view, p.tallies.sessions)
	p.questions = newQuestions(p, e.cfg.Status)
	return p, nil
}

// check has the members checked as the service's configuration says.
func (s *service) check() {
	s.checked.Configure(discovery.CheckConfig{
		HealthCheck: s.cfg.HealthCheck, PanicThreshold: max(0, s.cfg.PanicThreshold),
		Dial: func(ctx context.Context, m discovery.Member) (net.Conn, error) {
			return s.dial(ctx, m.Addr, ends{name: m.Name})
		},
	})
}

// hostOf is the host of the member at addr as it was registered: a name, even where addr is what that was looked up to be.
func (p *pool) hostOf(addr string) (string, error) {
	for _, m := range p.view.Snapshot().Members {
		if m.Addr == addr && m.Name != "" {
			return m.Name, nil
		}
	}
	host, _, err := net.SplitHostPort(addr)
	return host, err
}

// idOf is the id of the member at addr; the address, where it has left meanwhile.
func (p *pool) idOf(addr string) string {
	for _, m := range p.view.Snapshot().Members {
		if m.Addr == addr {
			return m.ID
		}
	}
	return addr
}

// dialError is a connection that did not come about, as opposed to one that failed later: nothing was sent.
type dialError struct{ err error }

func (d *dialError) Error() string { return d.err.Error() }
func (d *dialError) Unwrap() error { return d.err }

// ours tells a failure of this host (no descriptor, port or memory left) from one of the member's: no other member would do better, and
// walking on would only bring users where they do not belong.
func (d *dialError) ours() bool {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(d.err, errno) {
			return true
		}
	}
	return false
}

// dial connects to addr, a member's, within the service's connect timeout, TLS and all. Every error is a *dialError and has been counted,
// unless ctx has ended.
func (s *service) dial(ctx context.Context, addr string, from ends) (net.Conn, error) {
	until := time.Now().Add(s.cfg.ConnectTimeout)
	conn, err := s.sources.dial(ctx, addr, until)
	if err == nil {
		conn, err = s.introduce(ctx, conn, addr, from, until)
	}
	if err == nil {
		return conn, nil
	}
	if ctx.Err() != nil {
		return nil, &dialError{err}
	}
	return nil, s.unreachable(addr, err)
}

// unreachable counts a connection to addr that did not come about.
func (p *pool) unreachable(addr string, err error) *dialError {
	p.dialFailures.Inc()
	p.tallies.failed(p.idOf(addr), err)
	p.log.Debug("a member cannot be reached", zap.String("addr", addr), zap.Error(err))
	return &dialError{err}
}

// endedEarly tells whether err is a connection that ended or was reset by the member. With TLS 1.3 a member that does not take our
// certificate says so after the handshake, by an alert.
func endedEarly(err error) bool {
	if alert := (*net.OpError)(nil); errors.As(err, &alert) && alert.Op == "remote error" {
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE)
}
