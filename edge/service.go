package edge

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/selvedge/selvedge/internal/discovery"
)

// service is what the edge knows of one service. Its view and ring are its own: nothing here is shared between services.
type service struct {
	name         string
	cfg          ServiceConfig
	view         *discovery.View
	outliers     *outliers
	mover        *mover       // nil but for MoveClose
	open         atomic.Int64 // sessions
	dialFailures prometheus.Counter
	log          *zap.Logger
}

func newService(name string, cfg ServiceConfig, members Membership, stateDir string, log *zap.Logger) (*service, error) {
	src, err := members.Open(name, log)
	if err == nil && stateDir != "" {
		src, err = discovery.Remember(src, stateDir, log)
	}
	if err != nil {
		return nil, err
	}
	s := &service{
		name: name,
		cfg:  cfg,
		view: discovery.NewView(name, src, log),
		log:  log.With(zap.String("service", name)),
	}
	s.outliers = newOutliers(s.log, cfg)
	s.view.Subscribe(s.outliers.forget)
	return s, nil
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

// dial connects to addr, a member's, within the service's connect timeout. Every error is a *dialError and has been counted, unless ctx
// has ended.
func (s *service) dial(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: s.cfg.ConnectTimeout}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err == nil {
		return conn, nil
	}
	if ctx.Err() != nil {
		return nil, &dialError{err}
	}
	return nil, s.unreachable(addr, err)
}

// unreachable counts a connection to addr that did not come about.
func (s *service) unreachable(addr string, err error) *dialError {
	s.dialFailures.Inc()
	s.log.Debug("a member cannot be reached", zap.String("addr", addr), zap.Error(err))
	return &dialError{err}
}

// endedEarly tells whether err is a connection that ended or was reset by the member.
func endedEarly(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE)
}
