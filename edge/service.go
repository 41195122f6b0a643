package edge

import (
	"context"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
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

// candidate is a member to try for a request, and whom the walk has passed over before it.
type candidate struct {
	discovery.Member
	passedOver []string // ids, in walking order; empty at the owner
}

// walk yields whom to try for a user's requests, best first: the owner, then its successors, and last those that are avoided, so that
// there always is somebody to try. It ends after as many as the service's attempts. Without a user it begins at a random
// place on the ring, which spreads requests by weight. All come from snap.
func (s *service) walk(snap *discovery.Snapshot, user string) iter.Seq[candidate] {
	if user == "" {
		user = strconv.FormatUint(rand.Uint64(), 36)
	}
	return func(yield func(candidate) bool) {
		left := s.cfg.attempts()
		var avoided []discovery.Member
		var passed []string
		for id := range snap.Ring.Successors(user) {
			m, ok := snap.Member(id)
			if !ok {
				continue
			}
			if s.outliers.admit(m) {
				if left--; !yield(candidate{m, passed}) || left == 0 {
					return
				}
			} else {
				avoided = append(avoided, m)
			}
			passed = append(passed, id)
		}
		for _, m := range avoided {
			var others []string
			if m.ID != passed[0] {
				others = slices.DeleteFunc(slices.Clone(passed), func(id string) bool { return id == m.ID })
			}
			if left--; !yield(candidate{m, others}) || left == 0 {
				return
			}
		}
	}
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
	if ctx.Err() == nil {
		s.dialFailures.Inc()
		s.log.Debug("a member cannot be reached", zap.String("addr", addr), zap.Error(err))
	}
	return nil, &dialError{err}
}

// endedEarly tells whether err is a connection that ended or was reset by the member.
func endedEarly(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE)
}
