package edge

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/selvedge/selvedge/internal/config"
	"github.com/selvedge/selvedge/internal/identity"
)

// reloadPatience is how long a reload waits for the members of services that are new, so that their first requests find some. Together
// with the rest it leaves new connections the new configuration within a second.
const reloadPatience = 500 * time.Millisecond

// headCeiling is how large a request's head net/http reads at least, in bytes. It cannot be changed while a server runs; the limit proper
// is checked on the head that was read.
const headCeiling = 64 << 10

// Reload has the edge treat new connections and requests by cfg. Sessions and requests under way go on as they began; a service that
// routes go on to name keeps its members, its ring and what is known of them, and one that none names any more is followed until its
// last session has ended.
//
// What a running edge cannot change must be as it was: the addresses of Listen and Admin, Membership, Engine, StateDir, Name and
// AccessLog. An error names what differs, or what is wrong, and then nothing has changed. Metrics, Logger and AdminHandler are not looked
// at. Reload may be called at any time until Run's context ends, and by several goroutines, one after the other.
func (e *Edge) Reload(cfg Config) error {
	e.reloading.Lock()
	defer e.reloading.Unlock()
	if e.draining.Load() {
		return errors.New("edge: draining; there is nobody whom a new configuration would be for")
	}
	cfg.Metrics, cfg.Logger = e.cfg.Metrics, e.cfg.Logger
	cfg = cfg.withDefaults()
	if err := errors.Join(cfg.check(), e.cfg.needsRestart(cfg)); err != nil {
		return fmt.Errorf("edge: %w", err)
	}
	next, err := e.prepare(cfg)
	if err != nil {
		return fmt.Errorf("edge: %w", err)
	}
	e.install(next, cfg)
	if !reflect.DeepEqual(e.cfg.Membership, cfg.Membership) {
		e.log.Warn("the token for Consul has changed; services that are followed already use the old one until the edge is restarted")
	}
	return nil
}

// needsRestart says what of next differs from c that a running edge cannot change.
func (c Config) needsRestart(next Config) error {
	var errs []error
	same := func(key string, is bool) {
		if !is {
			errs = append(errs, config.Wrongf(key, "a running edge cannot change it; restart the edge, or put back what was there"))
		}
	}
	same("listen", slices.EqualFunc(c.Listen, next.Listen, func(a, b Listener) bool { return a.Addr == b.Addr }))
	same("listen: tls, proxy_protocol, redirect_https", slices.EqualFunc(c.Listen, next.Listen, Listener.sameKind))
	same("whether there is admin.tls", (c.Admin.TLS == nil) == (next.Admin.TLS == nil))
	same("admin.addr", c.Admin.Addr == next.Admin.Addr)
	same("consul, backends, registry, panic_threshold, ring_secret_file", reflect.DeepEqual(withoutToken(c.Membership), withoutToken(next.Membership)))
	same("engine", c.Engine == next.Engine)
	same("limits.idle_timeout", c.IdleTimeout == next.IdleTimeout)
	same("state_dir", c.StateDir == next.StateDir)
	same("name", c.Name == next.Name)
	same("access_log", c.AccessLog == next.AccessLog)
	if most := max(c.HeaderBytes, headCeiling); next.HeaderBytes > most {
		errs = append(errs, config.Wrongf("limits.header_bytes", "%d: this edge was started for at most %d; restart it", next.HeaderBytes, most))
	}
	return errors.Join(errs...)
}

// withoutToken leaves Consul's token out: one that was rotated must not keep the rest from being reloaded.
func withoutToken(m Membership) Membership {
	if m.Consul != nil {
		c := *m.Consul
		c.Token = ""
		m.Consul = &c
	}
	return m
}

// prepare makes what cfg asks for, without any effect on what is in force. Services that there are keep their pools; and those whose own
// configuration is as it was are the same altogether.
func (e *Edge) prepare(cfg Config) (*live, error) {
	services := make(map[string]*service)
	var fresh []*pool
	undo := func(err error) (*live, error) {
		for _, p := range fresh {
			e.metrics.forget(p)
		}
		return nil, err
	}
	for name, own := range cfg.routedServices() {
		old := e.service(name)
		if old != nil && reflect.DeepEqual(old.cfg, own) && own.EdgeSecretFile == "" && own.TLS == nil { // whose files may say something else now
			services[name] = old
			continue
		}
		var secrets *identity.Secrets
		if own.EdgeSecretFile != "" {
			var err error
			if secrets, err = identity.ReadSecrets(own.EdgeSecretFile); err != nil {
				return undo(config.Under("services."+name+".edge_secret_file", err))
			}
		}
		p := e.pool(name)
		if p == nil {
			var err error
			if p, err = newPool(e, name, cfg); err != nil {
				return undo(fmt.Errorf("members of service %q: %w", name, err))
			}
			if err := e.metrics.add(p); err != nil {
				return undo(fmt.Errorf("Metrics holds an edge's metrics already; each edge needs a registry of its own: %w", err))
			}
			fresh = append(fresh, p)
		}
		secure, err := own.TLS.clientConfig()
		if err != nil {
			return undo(config.Under("services."+name+".tls", err))
		}
		s := &service{pool: p, cfg: own, secrets: secrets, tls: secure, sources: &sources{addrs: own.SourceAddresses}}
		if own.OnMove == MoveClose {
			if old != nil && old.mover != nil {
				s.mover = old.mover
			} else {
				s.mover = newMover(p)
			}
		}
		services[name] = s
	}
	var last *auth
	if l := e.live.Load(); l != nil {
		last = l.auth
	}
	tokens, err := newAuth(cfg.Auth, last, cfg.Logger)
	if err != nil {
		return undo(err)
	}
	next, err := newLive(cfg, services, tokens)
	if err != nil {
		return undo(err)
	}
	return next, nil
}

// install puts next in force. The pools and movers that came with it are started first, where the edge runs, and those that it leaves
// behind are stopped.
func (e *Edge) install(next *live, cfg Config) {
	e.mu.Lock()
	for name, s := range next.services {
		if e.service(name) != s {
			s.check()
		}
		if e.pools[name] == nil {
			e.pools[name] = s.pool
			e.follow(s.pool)
		}
		s.departed.Store(false)
		s.outliers.expect(s.cfg)
	}
	e.verify(next.auth)
	e.mu.Unlock()
	e.awaitMembers(next)
	e.awaitKeys(next.auth)

	last := e.live.Swap(next)
	e.sessions.bound(sessionLimit(descriptorLimit(), cfg.Sessions))
	e.pace.set(cfg.Admission.UpgradesPerSecond)
	if last == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range next.services {
		e.move(s)
	}
	for name, s := range last.services {
		now := next.services[name]
		if s.mover != nil && (now == nil || now.mover != s.mover) && s.mover.stop != nil {
			s.mover.stop()
		}
		if now == nil {
			s.departed.Store(true)
		}
	}
	if a := last.auth; a != nil && a != next.auth && a.stop != nil {
		a.stop()
	}
	e.transports.keep(next)
	e.retire()
}

// awaitMembers gives services that are new to a running edge a moment to learn their members.
func (e *Edge) awaitMembers(next *live) {
	if e.moving == nil {
		return
	}
	patience := time.NewTimer(reloadPatience)
	defer patience.Stop()
	for name, s := range next.services {
		select {
		case <-s.view.Ready():
		case <-patience.C:
			e.log.Warn("the members of a new service are not known yet; its requests are refused until they are", zap.String("service", name))
			return
		case <-e.moving.Done():
			return
		}
	}
}

// retire stops to follow the services that no route names and that no session belongs to. It is called under mu.
func (e *Edge) retire() {
	for name, p := range e.pools {
		if !p.departed.Load() || p.open.Load() > 0 {
			continue
		}
		delete(e.pools, name)
		if p.stop != nil {
			p.stop()
		}
		e.metrics.forget(p)
		e.log.Info("a service that no route names is not followed any more", zap.String("service", name))
	}
}

// retireLater is retire for the goroutine on which a session ends, which must not wait.
func (e *Edge) retireLater() {
	e.running.Go(func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.retire()
	})
}

// routedServices are the services that c's routes name, with how to treat them.
func (c Config) routedServices() map[string]ServiceConfig {
	named := make(map[string]ServiceConfig)
	for _, r := range c.Routes {
		named[r.Service] = c.Services[r.Service]
	}
	return named
}

// service is what the edge knows of a service now; nil where no route names it.
func (e *Edge) service(name string) *service {
	if l := e.live.Load(); l != nil {
		return l.services[name]
	}
	return nil
}

func (e *Edge) pool(name string) *pool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.pools[name]
}

// followed are the pools that there are, with those that only sessions hold.
func (e *Edge) followed() map[string]*pool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.pools)
}
