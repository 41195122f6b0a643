package edge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/admin"
	"github.com/selvedge/selvedge/internal/config"
	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/identity"
	"github.com/selvedge/selvedge/internal/tunnel"
)

// HealthCheck is how the edge checks members that are not in Consul.
type HealthCheck = discovery.HealthCheck

// Membership says where the members of the services come from: exactly one of its fields is set.
type Membership = discovery.Membership

// Defaults of Config, where the field is zero.
const (
	DefaultAddr            = ":8080"
	DefaultAdminAddr       = "127.0.0.1:8081"
	DefaultService         = "default"
	DefaultKey             = "query:user"
	DefaultConnectTimeout  = time.Second
	DefaultResponseTimeout = 5 * time.Second
	DefaultRetries         = 2
	DefaultRouteTimeout    = 60 * time.Second
	DefaultDrainDelay      = time.Second
	DefaultDrainTimeout    = 60 * time.Second
	DefaultHeaderBytes     = 16 << 10
)

// Config is what an edge is made of. [New] copies and checks it; changing it afterwards has no effect, but [Edge.Reload] takes another one.
// What that can change is marked so; the rest is for a restart. The only field without a default is Membership.
type Config struct {
	Listen []Listener // where clients connect; default: one on DefaultAddr
	Admin  Admin

	Routes   []Route                  // reloadable; default: one that takes every host and path
	Services map[string]ServiceConfig // reloadable; by name; a service without an entry has the defaults

	Auth Auth // reloadable; whose tokens are believed; default: none, and then no route's key may be jwt:CLAIM

	Membership Membership

	Engine string // how tunnels move bytes: "auto" (default), "copy" or "splice"
	// DrainDelay is how long connections are still taken when Run's context has ended and readiness fails, so that balancers which ask for it
	// can turn away first. It counts in DrainTimeout. Reloadable; default 1 s, negative: not at all.
	DrainDelay   time.Duration
	DrainTimeout time.Duration // reloadable; how long sessions may go on when Run's context has ended; default 60 s, negative: not at all
	HeaderBytes  int           // reloadable; largest request head, in bytes; default 16,384
	Sessions     int           // reloadable; most sessions at once; default, and upper bound: what the descriptor limit allows
	IdleTimeout  time.Duration // after which a session is ended that has moved no byte either way; default: never. Pings count
	Name         string        // X-Selvedge-Edge; default: the host's name
	StateDir     string        // directory for the members last known, for a start while the registry is away; default: none

	AccessLog AccessLog // one line per session and request; default: none
	Admission Admission // reloadable; who may come in, and how many; default: whoever comes

	// TrustedProxies are the networks whose word on X-Forwarded-*, Forwarded and X-Request-Id is taken. Default: none.
	// Reloadable.
	TrustedProxies []netip.Prefix

	// AdminHandler serves all paths of the admin listener that start with /selvedge. (the RPC of the push service). nil: 404.
	AdminHandler http.Handler

	// Status asks a member of a service how it is, for the operator's page: see [sender.Sender.Status]. nil: the page shows what this edge
	// sees by itself.
	Status func(ctx context.Context, service string, r *pushv1.StatusRequest) (*pushv1.StatusResponse, error)

	Metrics *prometheus.Registry // takes the edge's metrics and is what /metrics shows; default: one of its own
	Logger  *zap.Logger          // default: silent
}

// Listener is one address that clients connect to.
type Listener struct {
	Addr      string       // host:port; port 0: any free one
	Inherited net.Listener // already listening (systemd, a predecessor, a test): used in place of Addr; Run closes it
	TLS       *TLS         // nil: plain HTTP

	// ProxyProtocol: every connection comes from TrustedProxies and begins with a PROXY header, version 1 or 2, before TLS if there is
	// any; who comes without is turned away.
	ProxyProtocol bool

	// RedirectHTTPS: what is asked for here is answered with a 308 to the same by https. For listeners without TLS.
	RedirectHTTPS bool
}

// sameKind tells whether connections to both are heard in the same way; the certificates may differ.
func (l Listener) sameKind(other Listener) bool {
	return (l.TLS != nil) == (other.TLS != nil) && l.ProxyProtocol == other.ProxyProtocol && l.RedirectHTTPS == other.RedirectHTTPS
}

// Admin is the operator's listener.
type Admin struct {
	Addr      string       // host:port; default DefaultAdminAddr; "off": none
	Inherited net.Listener // already listening: used in place of Addr; Run closes it
	Token     string       // reloadable; asked for as a bearer token for all but /healthz and /readyz
	TLS       *TLS         // nil: plain HTTP. Off loopback there must be a Token, or a TLS.ClientCA
}

// Route sends requests to a service. Of the routes that match, the most specific host wins (exact, then the longest *.suffix, then
// none), and among those the longest path. A path is a prefix, compared byte by byte as nginx's locations are: "/ws" takes
// /ws, /ws/x and /wsx; "/ws/" takes /ws/x, but not /ws. It is compared with the request's path after percent-decoding,
// merging of slashes and resolving of dot segments, so that no spelling of a path escapes its route.
type Route struct {
	Host    string // "chat.example.com", "*.example.com" (any number of labels, at least one), or "": any
	Path    string // default "/"
	Service string // default DefaultService
	Key     string // who the user is, as in the package identity; default DefaultKey

	Timeout   time.Duration // of plain HTTP: from the request's last byte to the first of the answer; default 60 s
	BodyBytes int64         // of plain HTTP: largest request body; 0: no limit (bodies are streamed, not held)

	// Of upgrades, too. What the edge answers by itself is not changed.
	RequestFields  FieldRules // applied to what the backend sees, last of all
	ResponseFields FieldRules // applied to what the client sees of a backend's answer, a 101 included
}

// OnMove says what becomes of the sessions of a user whose owner is another member now.
type OnMove string

const (
	// MoveKeep: they stay (the default). Backends that use our package move their sessions themselves.
	MoveKeep OnMove = "keep"
	// MoveClose: the edge ends those at members that do not use our package, at a pace, and clients connect again. A client sees the
	// end of the stream without a close frame (1006). A request without effect that still waits for its answer, such as a long poll, is
	// sent to the owner instead.
	MoveClose OnMove = "close"
)

// ServiceConfig is how to treat the members of a service.
type ServiceConfig struct {
	OnMove          OnMove        // default MoveKeep
	ConnectTimeout  time.Duration // to open a connection to one member; default 1 s
	ResponseTimeout time.Duration // from there to the head of its answer to an upgrade; default 5 s
	Retries         int           // successors tried after the owner; default 2, negative: none

	// EdgeSecretFile holds what the edges share with the members of this service: with it requests are signed, so that members can tell
	// them from others', and users can be sent to a member directly. Each line is at least 32 random bytes in base64 or hex; the first
	// signs. It is read anew at each reload. Default: none.
	EdgeSecretFile string

	TLS           *MemberTLS    // to the members; nil: plain
	ProxyProtocol ProxyProtocol // header that members are sent before all else; default: none

	// SourceAddresses are addresses of this host that connections to members come from, in turn. Each brings some 28,000 ports (see
	// ip_local_port_range) for each address of a member, and so that many sessions. Default: the one that the system chooses.
	SourceAddresses []netip.Addr

	// HealthCheck takes members out of the ring that fail it; the zero value checks nobody. It is for members of a list or a file that have no
	// RPC port: Consul has checks of its own, and members of ours must see the same ring as the edge.
	HealthCheck    HealthCheck
	PanicThreshold float64 // share of members that must pass for checks to be believed, up to 1; default 0.5, negative: off
}

// MemberTLS is how an edge talks TLS, 1.2 or later, to the members of a service. Each field may be empty.
type MemberTLS struct {
	CA         string // PEM file of those who sign the members' certificates; default: the system's
	Cert, Key  string // PEM files of the certificate that the edge shows; default: none
	ServerName string // that the members' certificates must have; default: the host of the member's address
}

// ProxyProtocol is a version of HAProxy's PROXY protocol.
type ProxyProtocol string

// ProxyV1 and ProxyV2 are its versions.
const (
	ProxyV1 ProxyProtocol = "v1"
	ProxyV2 ProxyProtocol = "v2"
)

// withDefaults returns a copy of c that shares nothing mutable with it, with every default filled in.
func (c Config) withDefaults() Config {
	if len(c.Listen) == 0 {
		c.Listen = []Listener{{Addr: DefaultAddr}}
	}
	if len(c.Routes) == 0 {
		c.Routes = []Route{{}}
	}
	c.Listen = slices.Clone(c.Listen)
	c.Routes = slices.Clone(c.Routes)
	c.TrustedProxies = slices.Clone(c.TrustedProxies)
	c.Auth.Algorithms = slices.Clone(c.Auth.Algorithms)
	c.Admission.Origins = slices.Clone(c.Admission.Origins)
	c.Admission.Allow, c.Admission.Deny = slices.Clone(c.Admission.Allow), slices.Clone(c.Admission.Deny)
	c.Services = maps.Clone(c.Services)
	if c.Services == nil {
		c.Services = make(map[string]ServiceConfig)
	}
	for i := range c.Routes {
		r := &c.Routes[i]
		r.Path = cmp.Or(r.Path, "/")
		r.Service = cmp.Or(r.Service, DefaultService)
		r.Key = cmp.Or(r.Key, DefaultKey)
		r.Timeout = cmp.Or(r.Timeout, DefaultRouteTimeout)
		c.Services[r.Service] = c.Services[r.Service].withDefaults()
	}
	c.Admin.Addr = cmp.Or(c.Admin.Addr, DefaultAdminAddr)
	c.DrainDelay = max(0, cmp.Or(c.DrainDelay, DefaultDrainDelay))
	c.DrainTimeout = max(0, cmp.Or(c.DrainTimeout, DefaultDrainTimeout))
	c.HeaderBytes = cmp.Or(c.HeaderBytes, DefaultHeaderBytes)
	if c.Name == "" {
		c.Name, _ = os.Hostname() // without a name of its own an edge is "edge"
		c.Name = cmp.Or(c.Name, "edge")
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	if c.Metrics == nil {
		c.Metrics = admin.NewRegistry()
	}
	return c
}

func (s ServiceConfig) withDefaults() ServiceConfig {
	s.OnMove = cmp.Or(s.OnMove, MoveKeep)
	s.ConnectTimeout = cmp.Or(s.ConnectTimeout, DefaultConnectTimeout)
	s.ResponseTimeout = cmp.Or(s.ResponseTimeout, DefaultResponseTimeout)
	s.Retries = cmp.Or(s.Retries, DefaultRetries)
	s.SourceAddresses = slices.Clone(s.SourceAddresses)
	s.PanicThreshold = cmp.Or(s.PanicThreshold, discovery.DefaultPanicThreshold)
	return s
}

// attempts is how many members may be asked for one request.
func (s ServiceConfig) attempts() int { return 1 + max(0, s.Retries) }

// check says everything that is wrong with c, which has its defaults: each is a [config.Error], by the key that the file would have.
func (c Config) check() error {
	var errs []error
	wrong := func(key, format string, args ...any) { errs = append(errs, config.Wrongf(key, format, args...)) }
	under := func(key string, err error) {
		if err != nil {
			errs = append(errs, config.Under(key, err))
		}
	}
	for i, l := range c.Listen {
		if l.Inherited == nil {
			if _, _, err := net.SplitHostPort(l.Addr); err != nil {
				wrong(fmt.Sprintf("listen[%d].addr", i), "%q: want HOST:PORT or :PORT", l.Addr)
			}
		}
		if l.RedirectHTTPS && l.TLS != nil {
			wrong(fmt.Sprintf("listen[%d].redirect_https", i), "this listener has TLS already; redirect on a plain one")
		}
		if l.ProxyProtocol && len(c.TrustedProxies) == 0 {
			wrong(fmt.Sprintf("listen[%d].proxy_protocol", i), "nobody may connect; name the proxies in trusted_proxies (TrustedProxies)")
		}
	}
	under("admin", c.Admin.check())
	for i, r := range c.Routes {
		under(fmt.Sprintf("routes[%d]", i), r.check(c.Auth.isSet()))
	}
	for name, s := range c.Services {
		key := "services." + name
		if s.ConnectTimeout < 0 {
			wrong(key+".connect_timeout", "%v is negative; leave it out for the default", s.ConnectTimeout)
		}
		if s.ResponseTimeout < 0 {
			wrong(key+".response_timeout", "%v is negative; leave it out for the default", s.ResponseTimeout)
		}
		if s.ProxyProtocol != "" && s.ProxyProtocol != ProxyV1 && s.ProxyProtocol != ProxyV2 {
			wrong(key+".proxy_protocol", "%q: want v1 or v2", s.ProxyProtocol)
		}
		for i, a := range s.SourceAddresses {
			if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" {
				wrong(fmt.Sprintf("%s.source_addresses[%d]", key, i), "%v: want an address of this host, such as 10.0.0.7", a)
			}
		}
		if s.OnMove != "" && s.OnMove != MoveKeep && s.OnMove != MoveClose {
			wrong(key+".on_move", "%q: want keep or close", s.OnMove)
		}
		under(key+".health_check", c.checkable(name, s))
	}
	if c.Membership.Backends != "" && len(c.Services) > 1 {
		wrong("backends", "a list names no services, and the routes name %d: put the members into a registry file", len(c.Services))
	}
	under("access_log", c.AccessLog.check())
	_, err := tunnel.ParseEngine(cmp.Or(c.Engine, "auto"))
	under("engine", err)
	if c.HeaderBytes < 1024 {
		wrong("limits.header_bytes", "%d: want at least 1024; browsers send that much", c.HeaderBytes)
	}
	if c.Sessions < 0 {
		wrong("limits.sessions", "%d: want 0 (as many as there are descriptors for) or more", c.Sessions)
	}
	if c.IdleTimeout < 0 {
		wrong("limits.idle_timeout", "%v is negative; leave it out for no limit", c.IdleTimeout)
	}
	under("limits", c.Admission.check())
	if !validFieldValue(c.Name) || strings.TrimSpace(c.Name) != c.Name {
		wrong("name", "%q: cannot stand in a header field", c.Name)
	}
	for i, p := range c.TrustedProxies {
		if !p.IsValid() {
			wrong(fmt.Sprintf("trusted_proxies[%d]", i), "not a network, like 10.0.0.0/8")
		}
	}
	return errors.Join(errs...)
}

// checkable says what keeps the members of a service from being checked as s says.
func (c Config) checkable(name string, s ServiceConfig) error {
	if err := s.HealthCheck.Validate(); err != nil || !s.HealthCheck.On() {
		return err
	}
	if c.Membership.Consul != nil {
		return errors.New("the members are in Consul, which checks them; remove health_check, or register the check with the service")
	}
	src, err := c.Membership.Open(name, nil)
	if err != nil {
		return nil // whoever opens it for good says so
	}
	if reader, ok := src.(discovery.Reader); ok {
		if members, err := reader.Read(context.Background(), name); err == nil {
			return discovery.Checkable(members)
		}
	}
	return nil
}

func (r Route) check(canVerify bool) error {
	if host, _ := strings.CutPrefix(r.Host, "*."); strings.ContainsAny(host, "*/:@ ") || r.Host == "*." {
		return config.Wrongf("host", "%q: want a name without port, *. before a name, or nothing for any host", r.Host)
	}
	if clean, ok := cleanPath(r.Path); !ok || clean != r.Path {
		return config.Wrongf("path", "%q: want a prefix that starts with /, percent-decoded, without // and dot segments", r.Path)
	}
	if r.Timeout < 0 {
		return config.Wrongf("timeout", "%v is negative; leave it out for the default", r.Timeout)
	}
	if r.BodyBytes < 0 {
		return config.Wrongf("body_bytes", "%d is negative; leave it out for no limit", r.BodyBytes)
	}
	if err := r.RequestFields.check(); err != nil {
		return config.Under("request_headers", err)
	}
	if err := r.ResponseFields.check(); err != nil {
		return config.Under("response_headers", err)
	}
	key, err := identity.ParseKey(r.Key)
	if err == nil && key.NeedsAuth() && !canVerify {
		err = fmt.Errorf("%q: %w", r.Key, identity.ErrNeedsAuth)
	}
	if err != nil {
		return config.Under("key", err)
	}
	return nil
}

func (a Admin) check() error {
	addr := a.Addr
	switch {
	case a.Inherited != nil:
		if a.Inherited.Addr().Network() == "unix" {
			return nil // the file's permissions say who may connect
		}
		addr = a.Inherited.Addr().String()
	case addr == "off":
		return nil
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return config.Wrongf("addr", `%q: want HOST:PORT, or "off" for no admin listener`, addr)
	}
	if a.TLS != nil && a.TLS.ClientCA != "" {
		return nil // strangers have no certificate
	}
	if err := admin.CheckExposure(addr, a.Token, "admin.token_file (Admin.Token) or admin.tls.client_ca"); err != nil {
		return config.Under("addr", err)
	}
	return nil
}
