package edge

import (
	"context"
	"errors"
	"fmt"
	stdlog "log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/reactor"
	"github.com/selvedge/selvedge/internal/tunnel"
)

const (
	headTimeout      = 10 * time.Second // for a client to send a request's head
	keepAliveTimeout = 75 * time.Second // for a client to send its next request
	farewell         = 5 * time.Second  // for connections to end in order once they have been told to
)

// Edge is a running, or runnable, edge. Its exported methods are safe for concurrent use.
type Edge struct {
	cfg     Config // checked, with defaults; not changed
	log     *zap.Logger
	httpLog *stdlog.Logger // net/http's complaints about clients, at debug level
	engine  tunnel.Engine
	metrics *metrics
	access  *accessLog // nil: none

	live       atomic.Pointer[live] // never nil
	sessions   *sessions
	tidy       *tidy
	pace       pace // of upgrades
	transports transports

	reloading sync.Mutex // held by Reload, one after the other, and by Run when reloads must be over
	mu        sync.Mutex
	pools     map[string]*pool // of the services that routes name, and of those that have sessions yet

	// Set by Run under mu, for what is started while it runs.
	work, moving context.Context // the first ends after the drain, the second when it begins; nil before Run
	running      sync.WaitGroup
	failed       chan error // what ends Run early; holds one

	relay atomic.Pointer[tunnel.Relay] // nil before Run

	// Tests change these before Run.
	slow        bool          // every connection goes through net/http
	bodyGrace   time.Duration // for a body of no bytes
	sendTimeout time.Duration // for a client to take a part of an answer
	headTimeout time.Duration // for a client to send a request's head, on the reactor as in net/http
	restTimeout time.Duration // for what a client goes on to send after an answer that ends the connection
	draining    atomic.Bool
	started     atomic.Bool

	ready     chan struct{} // closed once the two below are set
	addrs     []net.Addr
	adminAddr net.Addr
}

// New returns an edge made of cfg. The error names each field that is wrong, and what would be right. Nothing is opened yet.
func New(cfg Config) (*Edge, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("edge: %w", err)
	}
	engine, err := tunnel.ParseEngine(cfg.Engine)
	if err != nil {
		return nil, fmt.Errorf("edge: %w", err)
	}
	e := &Edge{
		cfg:        cfg,
		log:        cfg.Logger,
		engine:     engine,
		pools:      make(map[string]*pool),
		failed:     make(chan error, 1),
		sessions:   newSessions(sessionLimit(descriptorLimit(), cfg.Sessions)),
		tidy:       newTidy(),
		pace:       newPace(),
		transports: transports{pool: make(map[transportKey]*http.Transport)},
		ready:      make(chan struct{}),

		headTimeout: headTimeout,
		restTimeout: farewell,
		bodyGrace:   bodyGrace,
		sendTimeout: sendTimeout,
	}
	if e.httpLog, err = zap.NewStdLogAt(cfg.Logger, zap.DebugLevel); err != nil {
		return nil, fmt.Errorf("edge: %w", err)
	}
	if e.metrics, err = newMetrics(e); err != nil {
		return nil, fmt.Errorf("edge: Metrics holds an edge's metrics already; each edge needs a registry of its own: %w", err)
	}
	e.access = newAccessLog(cfg.AccessLog, cfg.Logger, e.metrics.logLost)
	first, err := e.prepare(cfg)
	if err != nil {
		return nil, fmt.Errorf("edge: %w", err)
	}
	e.install(first, cfg)
	return e, nil
}

// View is what the edge routes a service's requests by, for others in this process that must see the same; nil where no route names the
// service. It is followed while Run runs.
func (e *Edge) View(service string) *discovery.View {
	if p := e.pool(service); p != nil {
		return p.view
	}
	return nil
}

// Ready is closed when the edge listens. It stays open if Run fails before that.
func (e *Edge) Ready() <-chan struct{} { return e.ready }

// Addr is where the first listener listens; nil before Ready.
func (e *Edge) Addr() net.Addr {
	select {
	case <-e.ready:
		return e.addrs[0]
	default:
		return nil
	}
}

// AdminAddr is where the admin listener listens; nil before Ready, or where it is off.
func (e *Edge) AdminAddr() net.Addr {
	select {
	case <-e.ready:
		return e.adminAddr
	default:
		return nil
	}
}

// Sessions is how many sessions are open.
func (e *Edge) Sessions() int {
	e.sessions.mu.Lock() // the place of a session that this does not count any more is free
	defer e.sessions.mu.Unlock()
	return e.sessions.joined
}

// Run listens and serves until ctx ends, then drains: readiness fails, after DrainDelay no connection is accepted any more, and sessions and requests may
// go on for DrainTimeout; those left are ended at a pace with a FIN. It returns nil once all of that is done, or the error that kept
// it from working. It is called once.
func (e *Edge) Run(ctx context.Context) (err error) {
	if e.started.Swap(true) {
		return errors.New("edge: Run has been called already; make another Edge")
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("edge: %w", err)
		}
	}()
	if err := e.access.open(); err != nil {
		return err
	}
	defer e.access.close()
	listeners, admin, err := e.listen(ctx)
	if err != nil {
		return err
	}
	loops, err := reactor.New(0)
	if err != nil {
		closeAll(listeners, admin)
		return err
	}
	relay, err := tunnel.NewRelay(tunnel.Config{Reactor: loops, Engine: e.engine, IdleTimeout: e.cfg.IdleTimeout})
	if err != nil {
		closeAll(listeners, admin)
		return errors.Join(err, loops.Close())
	}
	e.relay.Store(relay)

	// Everything below ends when work does: after the drain.
	work, stop := context.WithCancel(context.Background())
	moving, stopMoving := context.WithCancel(work)
	defer stopMoving()
	start := func(f func() error) {
		e.running.Go(func() { e.fail(f()) })
	}
	e.mu.Lock()
	e.work, e.moving = work, moving
	for _, p := range e.pools {
		p.early = true
		e.follow(p)
	}
	for _, s := range e.live.Load().services {
		e.move(s)
	}
	e.verify(e.live.Load().auth)
	e.mu.Unlock()
	e.running.Go(func() { e.tidy.run(work) })
	public := e.publicServer(work)
	var intakes []*intake
	for i, ln := range listeners {
		if l := e.cfg.Listen[i]; l.TLS != nil || l.ProxyProtocol {
			g := newGreeter(e, ln, i)
			start(func() error { return ignoreClosed(public.Serve(g)) })
			continue
		}
		socket, ok := ln.(*net.TCPListener)
		if !ok || e.slow || e.cfg.Listen[i].RedirectHTTPS {
			start(func() error { return ignoreClosed(public.Serve(newListener(e, ln, i))) })
			continue
		}
		in, err := newIntake(e, socket, loops)
		if err != nil {
			_ = ln.Close() // unless that has been done
			e.fail(err)
			continue
		}
		intakes = append(intakes, in)
		start(func() error { return ignoreClosed(public.Serve(in)) })
	}
	adminServer := e.adminServer(work)
	if admin != nil {
		start(func() error { return ignoreClosed(adminServer.Serve(e.adminListener(admin))) })
	}
	close(e.ready)
	e.log.Info("edge is listening", zap.Stringer("addr", e.addrs[0]), zap.Any("admin", e.adminAddr), zap.Int("sessions_limit", e.sessions.most()))

	select {
	case <-ctx.Done():
	case err = <-e.failed:
	}
	e.draining.Store(true) // no reload begins any more
	stopMoving()           // all sessions go now, and new ones go elsewhere
	e.reloading.Lock()     // and none is under way
	delay, patience := e.live.Load().drainDelay, e.live.Load().drainTimeout
	e.reloading.Unlock()
	if err != nil {
		delay, patience = 0, 0
	}
	if delay > 0 {
		e.log.Info("edge is not ready any more, and takes connections until balancers have seen it", zap.Duration("for", delay))
		turnAway := time.NewTimer(delay)
		select {
		case <-turnAway.C:
		case err = <-e.failed:
			turnAway.Stop()
		}
	}
	patience -= delay
	e.drain(intakes, public, relay, patience)

	e.mu.Lock()
	stop() // under mu: whoever starts something looks at work first
	e.mu.Unlock()
	_ = adminServer.Close() // closes listeners and connections; nobody is left to hear of a failure
	e.transports.close()
	e.running.Wait()
	return errors.Join(err, loops.Close())
}

// follow has the edge follow a pool's members, if it runs. It is called under mu. Members that cannot be followed at all end an edge that
// starts; later, its sessions are worth more than a service that is new.
func (e *Edge) follow(p *pool) {
	if e.work == nil || p.stop != nil {
		return
	}
	var ctx context.Context
	ctx, p.stop = context.WithCancel(e.work)
	early := p.early
	e.running.Go(func() {
		err := p.view.Run(ctx)
		if err == nil {
			return
		}
		err = fmt.Errorf("members of service %q: %w", p.name, err)
		if early {
			e.fail(err)
			return
		}
		e.log.Error("the members of a service cannot be followed; mend it and restart the edge", zap.Error(err))
	})
}

// move starts the mover of a service, if it has one and the edge runs. It is called under mu.
func (e *Edge) move(s *service) {
	if s.mover == nil || e.moving == nil || s.mover.stop != nil {
		return
	}
	var ctx context.Context
	ctx, s.mover.stop = context.WithCancel(e.moving)
	e.running.Go(func() { s.mover.run(ctx) })
}

// fail ends Run with err, unless that is nil or another came first.
func (e *Edge) fail(err error) {
	if err == nil {
		return
	}
	select {
	case e.failed <- err:
	default:
		e.log.Error("the edge has failed already", zap.Error(err))
	}
}

// drain ends what clients are connected to.
func (e *Edge) drain(intakes []*intake, public *http.Server, relay *tunnel.Relay, patience time.Duration) {
	empty := e.sessions.close()
	e.log.Info("edge is draining", zap.Int("sessions", e.Sessions()), zap.Duration("at_most", patience))

	deadline, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var openings sync.WaitGroup
	for _, in := range intakes {
		openings.Go(func() { in.drain(deadline) })
	}
	openings.Wait()                       // only now has everything that net/http is to answer been handed over
	if public.Shutdown(deadline) != nil { // returns when no request is under way any more
		_ = public.Close() // requests break off
	}
	select {
	case <-empty:
	case <-deadline.Done():
		e.sessions.cutAll()
		wait := time.NewTimer(farewell)
		defer wait.Stop()
		select {
		case <-empty:
		case <-wait.C: // peers that do not close their side
		}
	}
	if err := relay.Close(); err != nil {
		e.log.Warn("the relay did not close in order", zap.Error(err))
	}
}

// listen opens all listeners, or none.
func (e *Edge) listen(ctx context.Context) (listeners []net.Listener, admin net.Listener, err error) {
	defer func() {
		if err != nil {
			closeAll(listeners, admin)
		}
	}()
	for _, l := range e.cfg.Listen {
		ln, err := listen(ctx, l.Addr, l.Inherited)
		if err != nil {
			return listeners, nil, err
		}
		listeners = append(listeners, ln)
		e.addrs = append(e.addrs, ln.Addr())
	}
	if a := e.cfg.Admin; a.Addr != "off" || a.Inherited != nil {
		if admin, err = listen(ctx, a.Addr, a.Inherited); err != nil {
			return listeners, nil, fmt.Errorf("admin: %w", err)
		}
		e.adminAddr = admin.Addr()
	}
	return listeners, admin, nil
}

func closeAll(listeners []net.Listener, admin net.Listener) {
	for _, ln := range append(listeners, admin) {
		if ln != nil {
			_ = ln.Close() // it was never used
		}
	}
}

func (e *Edge) publicServer(work context.Context) *http.Server {
	return &http.Server{
		Handler:                      e,
		ReadHeaderTimeout:            e.headTimeout,
		IdleTimeout:                  keepAliveTimeout,
		MaxHeaderBytes:               max(e.cfg.HeaderBytes, headCeiling),
		ErrorLog:                     e.httpLog,
		BaseContext:                  func(net.Listener) context.Context { return work },
		ConnContext:                  connContext,
		ConnState:                    connState,
		HTTP2:                        &http.HTTP2Config{WriteByteTimeout: e.sendTimeout},
		DisableGeneralOptionsHandler: true, // OPTIONS * has no path, and so no route
	}
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
