package edge

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
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
	return &service{
		name: name,
		cfg:  cfg,
		view: discovery.NewView(name, src, log),
		log:  log.With(zap.String("service", name)),
	}, nil
}

// candidates returns the members to ask for a user's requests, best first: the owner, then its successors. Without a user it walks from
// a random place on the ring, which spreads requests by weight. All come from one snapshot.
func (s *service) candidates(user string) []discovery.Member {
	if user == "" {
		user = strconv.FormatUint(rand.Uint64(), 36)
	}
	snap := s.view.Snapshot()
	most := min(s.cfg.attempts(), snap.Ring.Len())
	if most == 0 {
		return nil
	}
	found := make([]discovery.Member, 0, most)
	for id := range snap.Ring.Successors(user) {
		if m, ok := snap.Member(id); ok {
			if found = append(found, m); len(found) == most {
				break
			}
		}
	}
	return found
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
