package edge

import (
	"crypto/tls"
	"net/netip"
	"time"

	"github.com/selvedge/selvedge/internal/config"
)

// live is the part of the configuration that can be replaced while the edge runs, ready for use. It is immutable: a request takes the
// pointer once and is treated by the same one from start to end. Whatever is to be reloadable hangs from here, is made by [newLive] of a
// [Config] that was checked, and is compared with nothing: [Edge.Reload] swaps the pointer.
type live struct {
	services     map[string]*service // by name, those that routes name
	routes       routes
	headerBytes  int
	proxies      []netip.Prefix // trusted
	tls          []*tls.Config  // of the listeners, by their place in Config.Listen; nil: without
	auth         *auth          // nil: no tokens
	gate         gate
	adminToken   string
	drainDelay   time.Duration
	adminTLS     *tls.Config // nil: without
	drainTimeout time.Duration
}

// newLive compiles cfg, which has its defaults and was checked; services holds every service that its routes name. It reads the
// files that cfg names, and opens and starts nothing, so that a live which is not used after all leaves nothing behind.
func newLive(cfg Config, services map[string]*service, tokens *auth) (*live, error) {
	table, err := newRoutes(cfg.Routes, services)
	if err != nil {
		return nil, err
	}
	secure, err := serverConfigs(cfg.Listen)
	if err != nil {
		return nil, err
	}
	gate, err := newGate(cfg.Admission)
	if err != nil {
		return nil, err
	}
	var secureAdmin *tls.Config
	if cfg.Admin.TLS != nil {
		if secureAdmin, err = cfg.Admin.TLS.serverConfig(); err != nil {
			return nil, config.Under("admin.tls", err)
		}
	}
	return &live{
		services:     services,
		routes:       table,
		headerBytes:  cfg.HeaderBytes,
		proxies:      cfg.TrustedProxies,
		tls:          secure,
		auth:         tokens,
		gate:         gate,
		adminToken:   cfg.Admin.Token,
		drainDelay:   min(cfg.DrainDelay, cfg.DrainTimeout),
		adminTLS:     secureAdmin,
		drainTimeout: cfg.DrainTimeout,
	}, nil
}
