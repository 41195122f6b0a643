package sender

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/pushlink"
	"github.com/selvedge/selvedge/internal/rpc"
	"github.com/selvedge/selvedge/internal/tracing"
)

// Sender pushes to users of one service. It is safe for concurrent use.
type Sender struct {
	http    *http.Client
	token   string
	secure  bool            // members are called by TLS
	hangUp  func()          // ends all connections of http
	via     *member         // nil: members are called directly
	view    *discovery.View // nil with via
	prefix  string          // of message ids
	last    atomic.Uint64
	budget  budget
	metrics *metrics
	tracer  *tracing.Tracer // nil: nothing is traced
	streams sync.WaitGroup
	lines   lines

	stop   context.CancelFunc
	ended  chan struct{} // closed when the view has ended
	failed error         // why, if the members cannot be watched at all; set before ended is closed

	mu      sync.Mutex
	closed  bool               // no call begins any more
	calls   sync.WaitGroup     // under way; added to under mu while not closed
	members map[string]*member // by RPC address
}

// plain asks for answers that are not compressed: they are small, and gzip would cost more than the rest of a push.
var plain = connect.WithAcceptCompression("gzip", nil, nil)

// New checks cfg and starts to watch the members; calls wait until they are known. Close ends it.
func New(cfg Config) (*Sender, error) {
	named := cfg.Service
	if cfg.Service == "" {
		cfg.Service = "default"
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("sender: %w", err)
	}
	var secure func() *tls.Config
	if cfg.TLS != nil {
		var err error
		if secure, err = rpc.Credentials(*cfg.TLS).Follow(); err != nil {
			return nil, fmt.Errorf("sender: TLS: %w", err)
		}
	}
	counted, err := newMetrics(cfg.Service, cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("sender: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	client, hangUp := rpc.Client(cfg.Token, secure)
	s := &Sender{
		http:    client,
		token:   cfg.Token,
		secure:  cfg.TLS != nil,
		hangUp:  hangUp,
		prefix:  randomPrefix(),
		stop:    stop,
		ended:   make(chan struct{}),
		lines:   lines{waiting: make(map[string][]waiter)},
		members: make(map[string]*member),
		metrics: counted,
		tracer:  tracing.New(cfg.Tracer, cfg.Service, ""),
	}
	if cfg.Via != "" {
		if named != "" {
			client.Transport = &naming{named, client.Transport}
		}
		s.via = s.newMember(cfg.Via, cfg.Via, nil)
		close(s.ended)
		return s, nil
	}
	if cfg.View != nil {
		stop() // nothing of ours is to be ended by it
		s.view = cfg.View
		unsubscribe := s.view.Subscribe(s.forget)
		s.stop = sync.OnceFunc(func() { unsubscribe(); close(s.ended) })
		return s, nil
	}
	source, err := cfg.Membership.Open(cfg.Service, cfg.Logger)
	if err != nil {
		stop()
		counted.close()
		return nil, fmt.Errorf("sender: %w", err)
	}
	s.view = discovery.NewView(cfg.Service, source, cfg.Logger, cfg.Membership.RingOptions(cfg.Service)...)
	s.view.Subscribe(s.forget)
	go func() {
		defer close(s.ended)
		s.failed = s.view.Run(ctx)
	}()
	return s, nil
}

// naming says in each request which service it is for: edges that route to several want to know.
type naming struct {
	service   string
	transport http.RoundTripper
}

func (n *naming) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Selvedge-Service", n.service)
	return n.transport.RoundTrip(r)
}

// ErrClosed is returned by calls on a sender that has been closed: make a new one.
var ErrClosed = errors.New("sender is closed")

// Close waits for the calls under way, each of which ends with its context at the latest, then ends the watch and the connections.
// Calls that come later fail with [ErrClosed]. Closing again does nothing.
func (s *Sender) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.calls.Wait()
	s.stop()
	<-s.ended
	if s.via != nil {
		s.via.hangUp()
	}
	for _, m := range s.members { // nobody else is here any more
		m.hangUp()
	}
	s.hangUp()
	s.streams.Wait()
	s.metrics.close()
}

// begin admits a call, which has milliseconds of time as withTimeout says, and calls end when it is over.
func (s *Sender) begin(ctx context.Context, milliseconds uint32) (_ context.Context, end func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, fmt.Errorf("sender: %w", ErrClosed)
	}
	s.calls.Add(1)
	ctx, cancel := withTimeout(ctx, milliseconds)
	return ctx, func() { cancel(); s.calls.Done() }, nil
}

// member returns what is kept of a member: one client for all calls to it, and how it answered lately.
func (s *Sender) member(known discovery.Member) *member {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.members[known.RPCAddr]
	if !ok {
		var dial pushlink.Dial
		if !s.secure { // TLS has a stream of HTTP/2
			dial = func(ctx context.Context) (net.Conn, *bufio.Reader, error) {
				return rpc.Upgrade(ctx, known.RPCAddr, pushv1.PushServicePipelineProcedure, pushlink.Protocol, s.token)
			}
		}
		m = s.newMember(known.ID, rpc.URL(known.RPCAddr, s.secure), dial)
		s.members[known.RPCAddr] = m
	}
	return m
}

func (s *Sender) newMember(name, url string, dial pushlink.Dial) *member {
	client := &pipelined{PushServiceClient: pushv1.NewPushServiceClient(s.http, url, plain), member: name, dial: dial, running: &s.streams}
	return &member{name: name, client: client, ring: pushv1.NewRingServiceClient(s.http, url, plain), hangUp: client.close}
}

// forget drops what is kept of members that are gone. Pushes that are still under way there are tried at others.
func (s *Sender) forget(_, now *discovery.Snapshot) {
	inUse := make(map[string]bool)
	for _, m := range now.Members {
		inUse[m.RPCAddr] = true
	}
	var gone []*member
	s.mu.Lock()
	for addr, m := range s.members {
		if !inUse[addr] {
			delete(s.members, addr)
			gone = append(gone, m)
		}
	}
	s.mu.Unlock()
	for _, m := range gone {
		m.hangUp()
	}
}

// snapshot waits, as long as ctx does, until the members are known.
func (s *Sender) snapshot(ctx context.Context) (*discovery.Snapshot, error) {
	select {
	case <-s.view.Ready():
		return s.view.Snapshot(), nil
	default:
	}
	var err error
	select {
	case <-s.view.Ready():
		return s.view.Snapshot(), nil
	case <-s.ended:
		err = fmt.Errorf("sender: the members cannot be watched: %w", cmp.Or(s.failed, ErrClosed))
	case <-ctx.Done():
		err = fmt.Errorf("sender: the registry has not named the members yet: %w", ctx.Err())
	}
	return nil, pushv1.NewError(connect.CodeUnavailable, &pushv1.ErrorDetail{Reason: pushv1.Reason_NO_MEMBERS}, err)
}

// Owner returns the member that owns user, and false while no member is on the ring, or with Via, where the members are not known.
func (s *Sender) Owner(ctx context.Context, user string) (discovery.Member, bool) {
	if s.view == nil {
		return discovery.Member{}, false
	}
	snapshot, err := s.snapshot(ctx)
	if err != nil {
		return discovery.Member{}, false
	}
	return snapshot.Member(snapshot.Ring.Owner(user))
}

// randomPrefix makes the message ids of one sender unlike those of any other.
func randomPrefix() string { return rand.Text()[:10] + "-" }

func (s *Sender) newMessageID() string { return s.prefix + strconv.FormatUint(s.last.Add(1), 36) }

// withTimeout bounds ctx by what a request asks for, in milliseconds; 0 is the default, unless ctx has a deadline already.
func withTimeout(ctx context.Context, milliseconds uint32) (context.Context, context.CancelFunc) {
	if milliseconds > 0 {
		return context.WithTimeout(ctx, time.Duration(milliseconds)*time.Millisecond)
	}
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, pushv1.DefaultTimeout)
}
