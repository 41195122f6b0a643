package backend

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	lru "github.com/hashicorp/golang-lru/v2"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/admin"
	"github.com/selvedge/selvedge/internal/config"
	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/identity"
	"github.com/selvedge/selvedge/internal/reactor"
	"github.com/selvedge/selvedge/internal/rpc"
	"github.com/selvedge/selvedge/internal/tracing"
)

// Backend is one member of a service: it holds sessions, takes pushes and speaks to the other members.
type Backend struct {
	// static
	cfg     Config
	log     *zap.Logger
	device  identity.Key
	trust   *trust
	prefix  string // of session and message ids
	source  discovery.Source
	view    *discovery.View
	table   *table
	recent  *recent
	offline *offline
	moved   *lru.Cache[string, moveRecord]
	home    *home
	metrics *metrics
	tracer  *tracing.Tracer // nil: nothing is traced
	born    time.Time
	reactor *reactor.Reactor // made by Run, before the door opens
	ready   chan struct{}

	// known once Ready is closed
	addr, rpcAddr, adminAddr net.Addr

	// changing
	live        atomic.Pointer[live]
	draining    atomic.Bool
	lastSession atomic.Uint64
	lastMessage atomic.Uint64
	misplaced   atomic.Int64 // sessions that are to move
	pushRate    meter
	changes     *admin.Changes // of the ring
	closures    *admin.Journal[admin.Closure]
	door        door                  // of sessions
	calls       door                  // of calls to the RPC port
	crew        crew                  // runs the handlers
	nudge       chan struct{}         // wakes the mover; holds one
	self        chan discovery.Member // what is to be announced of this process; holds the newest
	hasJoined   chan struct{}         // closed when the first incarnation has joined
	failed      chan error            // what ends Run early; holds one
	leave       chan struct{}         // an operator has it drain; holds one
}

// New checks cfg and makes a member of it; [Backend.Run] brings it up. The error names every setting that is wrong.
func New(cfg Config) (*Backend, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("backend: %w", err)
	}
	source, err := cfg.Membership.Open(cfg.Service, cfg.Logger)
	if err != nil {
		return nil, fmt.Errorf("backend: %w", err)
	}
	trusted, err := newTrust(cfg)
	if err != nil {
		return nil, fmt.Errorf("backend: %w", config.Under("backend.edge_secret_file", err))
	}
	watched := source
	if cfg.StateDir != "" {
		if watched, err = discovery.Remember(source, cfg.StateDir, cfg.Logger); err != nil {
			return nil, fmt.Errorf("backend: %w", err)
		}
	}
	now := uint64(time.Now().UnixNano())
	b := &Backend{
		cfg:       cfg,
		log:       cfg.Logger.With(zap.String("member", cfg.ID)),
		prefix:    cfg.ID + "-" + strconv.FormatUint(now, 36) + "-",
		trust:     trusted,
		source:    source,
		view:      discovery.NewView(cfg.Service, watched, cfg.Logger, cfg.Membership.RingOptions(cfg.Service)...),
		table:     newTable(),
		ready:     make(chan struct{}),
		recent:    newRecent(),
		nudge:     make(chan struct{}, 1),
		self:      make(chan discovery.Member, 1),
		hasJoined: make(chan struct{}),
		failed:    make(chan error, 1),
		tracer:    tracing.New(cfg.Tracer, cfg.Service, cfg.ID),
		leave:     make(chan struct{}, 1),
		born:      time.Now(),
		closures:  admin.NewJournal[admin.Closure](rememberClosures),
	}
	live, err := newLive(cfg)
	if err != nil {
		return nil, fmt.Errorf("backend: %w", err)
	}
	b.changes = admin.NewChanges(b.view, nil)
	b.live.Store(live)
	b.device, _ = identity.ParseKey(cfg.Device) // checked above
	if b.home, err = newHome(b, watched); err != nil {
		return nil, fmt.Errorf("backend: %w", err)
	}
	if b.offline, err = newOffline(); err != nil {
		return nil, fmt.Errorf("backend: %w", err)
	}
	if b.moved, err = lru.New[string, moveRecord](rememberMoves); err != nil {
		return nil, fmt.Errorf("backend: %w", err)
	}
	if b.metrics, err = newMetrics(b, cfg.Metrics); err != nil {
		return nil, fmt.Errorf("backend: metrics: %w", err)
	}
	return b, nil
}

// Ready is closed once the member listens and knows the others; then Addr, RPCAddr and AdminAddr say where.
func (b *Backend) Ready() <-chan struct{} { return b.ready }

// Addr returns where edges connect.
func (b *Backend) Addr() net.Addr { return b.addr }

// RPCAddr returns where senders and other members connect.
func (b *Backend) RPCAddr() net.Addr { return b.rpcAddr }

// AdminAddr returns where the operator connects; nil without one.
func (b *Backend) AdminAddr() net.Addr { return b.adminAddr }

// ID returns the member's id on the ring.
func (b *Backend) ID() string { return b.cfg.ID }

// Owner returns the id of the member that owns user on the ring in force; "" while the ring is empty.
func (b *Backend) Owner(user string) string { return b.view.Snapshot().Ring.Owner(user) }

// Sessions returns the number of open sessions here.
func (b *Backend) Sessions() int { return b.table.len() }

// SessionsOf returns the user's sessions here; the slice must not be changed.
func (b *Backend) SessionsOf(user string) []*Session { return b.table.of(user) }

// Run is the life of a member: it listens, makes itself known, serves until ctx ends, then drains: new sessions are refused, old
// ones are sent away at a pace, and after Config.DrainTimeout the rest is closed. It returns nil after a drain that emptied the member,
// [ErrDrainTimeout] after one that did not, and any other error where the member could not work at all. Handlers have returned by
// then; those that do not within some seconds after the last close are left behind, and the error says so. It is called once.
func (b *Backend) Run(ctx context.Context) error {
	var err error
	if b.reactor, err = reactor.New(0); err != nil {
		return fmt.Errorf("backend: %w", err)
	}
	defer func() { _ = b.reactor.Close() }() // has no error to tell
	listeners, err := b.listen(ctx)
	if err != nil {
		return fmt.Errorf("backend: %w", err)
	}
	b.calls.open()
	b.door.open()
	comers, err := b.receive(listeners.sessions)
	if err != nil {
		listeners.close()
		return fmt.Errorf("backend: %w", err)
	}
	peerPath, peerHandler := b.home.rpcHandler()
	sessions := &http.Server{Handler: http.HandlerFunc(b.serveHTTP), ReadHeaderTimeout: headTimeout, MaxHeaderBytes: headMost}
	pipelines, endPipelines := context.WithCancel(context.WithoutCancel(ctx))
	defer endPipelines()
	calls := rpc.Server(b.rpcHandler(pipelines, peerPath, peerHandler))
	calls.ErrorLog, _ = zap.NewStdLogAt(b.log, zap.InfoLevel) // the level is one
	operator := &http.Server{Handler: b.adminHandler(pipelines), ReadHeaderTimeout: 10 * time.Second}

	// Serving goes on while the member drains, so it has a context of its own.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, serving := errgroup.WithContext(serving)
	defer b.home.close()
	group.Go(func() error { return serve(sessions, comers) })
	group.Go(func() error { return serve(calls, b.secured(listeners.rpc)) })
	if listeners.admin != nil {
		group.Go(func() error { return serve(operator, listeners.admin) })
	}
	cancelSubscription := b.view.Subscribe(b.membersChanged)
	defer cancelSubscription()
	group.Go(func() error { return b.view.Run(serving) })
	moving, stopMoving := context.WithCancel(ctx)
	defer stopMoving()
	group.Go(func() error { b.move(moving); return nil })
	group.Go(func() error { b.followSecrets(serving); return nil })
	group.Go(func() error { b.pushRate.run(serving, b.metrics.pushes); return nil })

	announcing, withdraw := context.WithCancel(serving)
	defer withdraw()
	announced := make(chan struct{})
	group.Go(func() error {
		defer close(announced)
		return b.announce(announcing, b.self)
	})
	group.Go(func() error {
		select {
		case <-b.view.Ready():
			b.home.start(serving)
			b.home.run(serving)
		case <-serving.Done():
		}
		return nil
	})

	ended := b.serveUntil(ctx, serving)

	// Goodbye: out of the registry first, and the RPC listener closes last, since a refused connection is what tells others
	// that this process holds nothing any more.
	withdraw()
	<-announced
	stopMoving()
	empty := b.door.shut()
	_ = sessions.Close()
	left := b.closeAll(Stopped, empty)
	b.home.leave()
	_ = operator.Close()
	b.hangUp(calls)
	endPipelines()
	stop()
	return errors.Join(group.Wait(), ended, left)
}

// serveUntil is the time from the start to the end of the work: joining, serving, draining.
func (b *Backend) serveUntil(ctx, serving context.Context) error {
	for _, step := range []<-chan struct{}{b.view.Ready(), b.hasJoined} {
		select {
		case <-step:
		case err := <-b.failed:
			return err
		case <-ctx.Done():
			return nil
		case <-serving.Done():
			return nil
		}
	}
	b.log.Info("serving", zap.Stringer("addr", b.addr), zap.Stringer("rpc", b.rpcAddr), zap.Any("admin", b.adminAddr), zap.String("service", b.cfg.Service))
	close(b.ready)
	select {
	case <-ctx.Done():
		return b.drain()
	case <-b.leave:
		return b.drainAndStay(ctx, serving)
	case err := <-b.failed:
		return err
	case <-serving.Done():
		return nil
	}
}

// joined is told each time that an incarnation has joined.
func (b *Backend) joined() {
	b.log.Info("joined the other members")
	select {
	case <-b.hasJoined:
	default:
		close(b.hasJoined)
	}
}

// fail ends Run with err.
func (b *Backend) fail(err error) {
	select {
	case b.failed <- err:
	default:
	}
}

// hangUp lets calls under way end, for a moment: their answers are good, and a caller that loses one must ask again.
func (b *Backend) hangUp(server *http.Server) {
	limit := time.NewTimer(lastCalls)
	defer limit.Stop()
	select {
	case <-b.calls.shut():
	case <-limit.C:
	}
	_ = server.Close()
}

// counted has calls pass through b.calls. Streams do not end by themselves; they count each push.
func (b *Backend) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := r.URL.Path; p == pushv1.PushServicePipelineProcedure || p == pushv1.PushServicePushStreamProcedure {
			next.ServeHTTP(w, r)
			return
		}
		if !b.calls.enter() {
			http.Error(w, "this member has stopped", http.StatusServiceUnavailable)
			return
		}
		defer b.calls.leave()
		next.ServeHTTP(w, r)
	})
}

const lastCalls = time.Second

type listeners struct{ sessions, rpc, admin net.Listener }

func (l listeners) close() {
	for _, ln := range []net.Listener{l.sessions, l.rpc, l.admin} {
		if ln != nil {
			_ = ln.Close()
		}
	}
}

func (b *Backend) listen(ctx context.Context) (l listeners, err error) {
	var config net.ListenConfig
	open := func(addr string) net.Listener {
		if err != nil || addr == "" {
			return nil
		}
		var ln net.Listener
		ln, err = config.Listen(ctx, "tcp", addr)
		return ln
	}
	l = listeners{open(b.cfg.Listen), open(b.cfg.RPC), open(b.cfg.Admin)}
	if err != nil {
		l.close()
		return listeners{}, err
	}
	b.addr, b.rpcAddr = l.sessions.Addr(), l.rpc.Addr()
	if l.admin != nil {
		b.adminAddr = l.admin.Addr()
	}
	return l, nil
}

func serve(s *http.Server, ln net.Listener) error {
	if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// serveHTTP is what edges reach: upgrades become sessions, the rest is the service's.
func (b *Backend) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if !isUpgrade(r) && b.cfg.HTTP != nil {
		b.FromEdges(b.cfg.HTTP).ServeHTTP(w, r)
		return
	}
	b.accept(w, r)
}

// rpcHandler is what senders and members reach, each with a credential of its own.
func (b *Backend) rpcHandler(pipelines context.Context, peerPath string, peer http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", admin.RequireTokenOf(b.rpcToken, b.pushHandler(pipelines)))
	mux.Handle(peerPath, admin.RequireToken(b.cfg.PeerToken, b.membersOnly(peer))) // one endless stream from each member; its questions are counted
	return mux
}

// pushHandler serves the push and ring services to whoever has shown a token. Senders' own connections end with pipelines.
func (b *Backend) pushHandler(pipelines context.Context) http.Handler {
	mux := http.NewServeMux()
	options := connect.WithHandlerOptions(rpc.JSON(), connect.WithReadMaxBytes(maxRequestBytes))
	path, push := pushv1.NewPushServiceHandler(pushService{b}, options)
	mux.Handle(path, b.counted(pushService{b}.orUpgraded(pipelines, push)))
	path, ring := pushv1.NewRingServiceHandler(pushService{b}, options)
	mux.Handle(path, b.counted(ring))
	return mux
}

func (b *Backend) adminHandler(pipelines context.Context) http.Handler {
	return admin.Handler(admin.Config{Token: b.adminToken, Ready: b.isReady, Show: b.cfg.Metrics, Page: pictures{b}, RPC: b.pushHandler(pipelines)})
}

func (b *Backend) isReady() error {
	select {
	case <-b.ready:
	default:
		return errors.New("starting: the members are not known yet")
	}
	if b.draining.Load() {
		return errors.New("draining")
	}
	if !b.home.isServing() {
		return errors.New("joining the others anew")
	}
	if b.view.Snapshot().Ring.Len() == 0 {
		return errors.New("no member is on the ring")
	}
	return nil
}

// closed counts the end of a session and tells the service.
func (b *Backend) closed(s *Session, reason CloseReason) {
	defer b.door.leave()
	b.metrics.closes.WithLabelValues(reason.String()).Inc()
	if reason != Refused {
		b.closures.Add(admin.Closure{
			Member: b.cfg.ID, Reason: reason.String(), By: "backend", User: s.user, Device: s.device, Lasted: time.Since(s.since).Milliseconds(),
		})
	}
	if reason != Refused && b.cfg.OnClose != nil {
		s.guard("OnClose", func() { b.cfg.OnClose(s, reason) })
	}
}

func (b *Backend) newMessageID() string {
	return b.prefix + "m" + strconv.FormatUint(b.lastMessage.Add(1), 36)
}
