package backend

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/selvedge/selvedge/internal/admin"
	"github.com/selvedge/selvedge/internal/config"
	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/identity"
)

// Membership says where the members of the service are found; exactly one of its fields is set.
type Membership = discovery.Membership

// Consul names a Consul agent; the zero value is the local one, or the one that Consul's environment variables name.
type Consul = discovery.ConsulConfig

// OnMove says which sessions are closed, with 1012, when the ring changes.
type OnMove string

const (
	MoveRange OnMove = "range" // those whose user belongs to another member now (the default)
	MoveAll   OnMove = "all"   // all: every client looks its member up anew
	MoveKeep  OnMove = "keep"  // none: sessions stay until they end by themselves
)

// OnFull says what becomes of a session for which more waits than [Config.QueueBytes].
type OnFull string

const (
	FullClose OnFull = "close" // it is closed with 1013 (the default): a client that connects again knows that it has missed something
	FullDrop  OnFull = "drop"  // its oldest messages are dropped: for positions, prices, scores, which the next one replaces
)

// Config is a member's configuration. The zero value of each field is its default; New copies and checks it.
type Config struct {
	// ID names the member on the ring. It should survive restarts, since another id owns other users. Default: the host name.
	ID string
	// Service is the name under which members find each other. Default: "default".
	Service string
	// Listen is where edges connect, host:port. Default ":9000".
	Listen string
	// RPC is where senders and the other members connect, host:port. Never let clients reach it. Default "127.0.0.1:9100".
	RPC string
	// RPCTLS has RPC speak TLS, with all who call it; it is the same for all members of the service, or for none. Default: none.
	RPCTLS *RPCTLS
	// Admin serves metrics, health and profiles, host:port. Default: none.
	Admin string
	// Advertise is the host under which others reach Listen and RPC. Default: the listeners' own hosts; for a Listen on all
	// addresses, the address that Consul has of this node.
	Advertise string
	// EdgeSecretFile holds what this member shares with the edges: who says X-Selvedge-User must then sign it. Each line is at least 32 random
	// bytes in base64 or hex; all are good, so that they can be changed one after the other, and a changed file counts within seconds.
	// Default: none.
	EdgeSecretFile string
	// TrustedEdges are networks from where everything is believed without a signature: those that hold edges and nobody else. Off loopback
	// this or EdgeSecretFile is needed. Default: loopback, where there is no EdgeSecretFile, else none.
	TrustedEdges []netip.Prefix
	// PublicURL is where clients reach Listen without an edge, ws:// or wss://, for those that ask an edge where to connect and come with a
	// ticket. What ends TLS in front takes the path of PublicURL away, if it has one, and passes on the rest as it is. It needs
	// EdgeSecretFile. Default: none; clients come through edges.
	PublicURL string
	// Weight multiplies the member's share of users, 1 to 1,000. Default 1.
	Weight int
	// Membership says where the members are found. The member announces itself there where the source can take it.
	Membership Membership

	// StateDir is a directory for the members last known, for a start while the registry is away. Default: none.
	StateDir string

	// OnOpen is called before the 101 goes out. It may refuse with a *Refusal, read what it needs of r (nothing of r may be kept),
	// and send: what it sends leaves right behind the 101. It may block; only this client waits. A handler that panics ends its
	// session (500 here, else 1011) and not the process.
	OnOpen func(s *Session, r *http.Request) error
	// OnMessage is called for each message, in order per session and never concurrently for one. m is the callee's to keep. It
	// may block: then this session alone is not read any further.
	OnMessage func(s *Session, m Message)
	// OnClose is called once, after the last OnMessage, for each session whose OnOpen returned nil.
	OnClose func(s *Session, reason CloseReason)
	// OnOffline is called, before the push is answered, for each message that certainly found no session of its user: Push, PushMany and
	// PushStream alike, but not Broadcast, nor pushes that leave a session out. It is called by the member that answers the sender, which in calm
	// is the user's home, at least once for each OFFLINE answer; a message id that the member has handed over lately is not handed over again, but
	// another member may: store under user and id. m is the callee's to read and must not be changed. It may block, until ctx ends at most;
	// 64 run at once. Where it returns an error, or panics, the push fails with ErrUnsettled instead, and the sender tries again.
	OnOffline func(ctx context.Context, user, messageID string, m Message) error
	// HTTP serves what is no upgrade on Listen. Default: 426.
	HTTP http.Handler
	// Device is the key expression that finds a session's device. Default "query:device".
	Device string
	// Subprotocols are the WebSocket subprotocols the service speaks; the first that a client offers is chosen.
	Subprotocols []string

	// MessageBytes bounds one message from a client, all fragments together, compressed and not; above: 1009. Default 1 MiB.
	MessageBytes int
	// QueueBytes bounds what waits for a slow client; above, OnFull says what happens. A message that waits behind none is taken whatever
	// its size, and so is, where the oldest are dropped, the newest behind one that was begun. Default 256 KiB.
	QueueBytes int
	// OnFull is FullClose or FullDrop. A push whose message a session drops fails with ErrOverloaded: it is neither delivered nor offline.
	OnFull OnFull
	// Compress agrees to permessage-deflate (RFC 7692) with clients that offer it, without context takeover: an idle session holds no more
	// memory for it. It costs processor time: worth it for texts of some hundred bytes and more. Default: no.
	Compress bool
	// Limits bound what clients may take of this process.
	Limits Limits
	// HandshakeTimeout bounds writing the 101. Default 5 s.
	HandshakeTimeout time.Duration
	// PingEvery is how often each client is pinged, give or take 20 %. Default 30 s; below 0: never, and TCP's keepalive is left on instead.
	PingEvery time.Duration
	// PongTimeout is how long a client may be silent behind a ping; then its session ends with 1011. Any byte of it counts. Default
	// 10 s, or half of PingEvery where that is less.
	PongTimeout time.Duration

	// OnMove and Move say what becomes of sessions when the ring changes.
	OnMove OnMove
	Move   Pace
	// DrainTimeout is how long Run waits, once its context ends, for sessions to move away. Default 60 s.
	DrainTimeout time.Duration

	// DistrustRefused is for members behind address translation or forwarders: there a refused connection does not prove that the
	// process behind it has ended.
	DistrustRefused bool

	// RPCToken is the bearer token that senders show; PeerToken the one that members show to each other. Off loopback both are needed.
	RPCToken  string
	PeerToken string
	// AdminToken guards Admin; off loopback it is needed.
	AdminToken string

	// Metrics is where the member registers its metrics. Default: a registry of its own, served on Admin.
	Metrics *prometheus.Registry
	// Tracer makes spans of pushes that come to this member, and of what it asks others about them. Default: none are made.
	Tracer trace.TracerProvider
	// Logger gets what an operator should know. Default: nothing is logged.
	Logger *zap.Logger
}

// RPCTLS is how a member talks TLS, 1.2 or later, on RPC and to the other members. The files are read by New, and again by [Backend.Reload]; for calls
// to others at each connection.
type RPCTLS struct {
	// Cert and Key are PEM files of the member's certificate, with its chain, and its key. The member shows it to other members, too.
	Cert, Key string
	// ClientCA is a PEM file of those who sign the certificates that senders must show, which then is as good as a token. Default: none is asked for.
	ClientCA string
	// CA is a PEM file of those who sign the members' certificates. Where there is a ClientCA and no PeerToken, whoever shows such a
	// certificate is a member. Default: ClientCA, else the system's.
	CA string
	// ServerName is what the members' certificates must have. Default: the host of the member's address.
	ServerName string
}

// Pace bounds how fast sessions are closed when their users move; the slowest bound wins, and at least one a second goes.
type Pace struct {
	Settle       time.Duration // the ring must not have changed for so long before sessions move. Default 2 s
	Spread       time.Duration // a ring change's moves are spread over this. Default 10 s
	MaxPerSecond float64       // share of the member's sessions, 0 to 1, that may be closed in a second. Default 0.05
	Grace        time.Duration // how long a push waits for a session that was sent to its new home, before it is OFFLINE. Default 2 s
}

func (c Config) withDefaults() Config {
	if c.ID == "" {
		c.ID, _ = os.Hostname()
	}
	def(&c.Service, "default")
	def(&c.Listen, ":9000")
	def(&c.RPC, "127.0.0.1:9100")
	def(&c.Weight, 1)
	def(&c.Device, "query:device")
	def(&c.MessageBytes, 1<<20)
	def(&c.QueueBytes, 256<<10)
	def(&c.OnFull, FullClose)
	def(&c.Limits.Sessions, sessionsPossible())
	def(&c.HandshakeTimeout, 5*time.Second)
	def(&c.PingEvery, 30*time.Second)
	if c.PingEvery > 0 {
		def(&c.PongTimeout, min(10*time.Second, c.PingEvery/2))
	}
	def(&c.OnMove, MoveRange)
	def(&c.Move.Settle, 2*time.Second)
	def(&c.Move.Spread, 10*time.Second)
	def(&c.Move.MaxPerSecond, 0.05)
	def(&c.Move.Grace, 2*time.Second)
	def(&c.DrainTimeout, 60*time.Second)
	if c.Metrics == nil {
		c.Metrics = admin.NewRegistry()
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	return c
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// check returns every problem at once, each with its mend: each is a [config.Error], by the key that the file would have.
func (c Config) check() error {
	var problems []error
	bad := func(key, format string, args ...any) {
		problems = append(problems, config.Wrongf(key, format, args...))
	}
	if c.ID == "" {
		bad("backend.id", "empty, and this host has no name; name the member")
	}
	if c.Weight < 1 || c.Weight > 1000 {
		bad("backend.weight", "%d; want 1 to 1,000", c.Weight)
	}
	if c.OnMove != MoveRange && c.OnMove != MoveAll && c.OnMove != MoveKeep {
		bad("backend.on_move", "%q; want range, all or keep", c.OnMove)
	}
	if c.OnFull != FullClose && c.OnFull != FullDrop {
		bad("backend.on_full", "%q; want close or drop", c.OnFull)
	}
	if c.Move.MaxPerSecond < 0 || c.Move.MaxPerSecond > 1 {
		bad("backend.move.max_per_second", "%v; want a share, 0 to 1", c.Move.MaxPerSecond)
	}
	if c.MessageBytes < 0 {
		bad("backend.message_bytes", "%d; want a number of bytes above 0", c.MessageBytes)
	}
	if c.QueueBytes < 0 {
		bad("backend.queue_bytes", "%d; want a number of bytes above 0", c.QueueBytes)
	}
	for _, d := range []struct {
		key   string
		value time.Duration
	}{
		{"backend.handshake_timeout", c.HandshakeTimeout}, {"drain_timeout", c.DrainTimeout}, {"backend.move.settle", c.Move.Settle},
		{"backend.move.spread", c.Move.Spread}, {"backend.move.grace", c.Move.Grace},
	} {
		if d.value < 0 {
			bad(d.key, "%v; want a duration above 0", d.value)
		}
	}
	if l := c.Limits; l.Sessions < 0 || l.PerUser < 0 || !(l.MessagesPerSecond >= 0) || l.MessagesPerSecond > 1e6 {
		bad("backend.limits", "want numbers above 0, and at most 1,000,000 messages a second")
	}
	if c.PingEvery > 0 && (c.PongTimeout < 0 || c.PongTimeout > earliestPing(c.PingEvery)) {
		bad("backend.pong_timeout", "%v; want a duration above 0 and at most 4/5 of ping_every (%v)", c.PongTimeout, c.PingEvery)
	}
	if _, err := identity.ParseKey(c.Device); err != nil {
		problems = append(problems, config.Under("backend.device", err))
	}
	certificate := "" // which strangers do not have
	if t := c.RPCTLS; t != nil {
		certificate = t.ClientCA
		if t.Cert == "" || t.Key == "" {
			bad("backend.rpc.tls", "no certificate: set cert and key (RPCTLS)")
		}
	}
	for _, l := range []struct{ key, addr, token, needs string }{
		{"backend.rpc.addr", c.RPC, c.RPCToken + certificate, "backend.rpc.token_file (RPCToken) or backend.rpc.tls.client_ca (RPCTLS)"},
		{"backend.rpc.addr", c.RPC, c.PeerToken + certificate, "backend.rpc.peer_token_file (PeerToken) or backend.rpc.tls.client_ca (RPCTLS)"},
		{"admin.addr", c.Admin, c.AdminToken, "admin.token_file (AdminToken)"},
	} {
		if err := admin.CheckExposure(l.addr, l.token, l.needs); err != nil {
			problems = append(problems, config.Under(l.key, err))
		}
	}
	if err := c.checkTrust(); err != nil {
		problems = append(problems, err)
	}
	if host, _, err := net.SplitHostPort(c.RPC); err == nil && c.Advertise == "" && isWildcard(host) {
		bad("backend.advertise", "needed, since backend.rpc.addr %s is no address that others can connect to; set it to this host's name or address", c.RPC)
	}
	return errors.Join(problems...)
}

// checkTrust sees to it that nobody can make a user up.
func (c Config) checkTrust() error {
	var problems []error
	bad := func(key, format string, args ...any) {
		problems = append(problems, config.Wrongf(key, format, args...))
	}
	if host, _, err := net.SplitHostPort(c.Listen); err != nil {
		bad("backend.listen", "%q; want HOST:PORT or :PORT", c.Listen)
	} else if ip := net.ParseIP(host); c.EdgeSecretFile == "" && len(c.TrustedEdges) == 0 && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		bad("backend.listen", "%s can be reached from outside, and whoever connects could be any user; set backend.edge_secret_file (EdgeSecretFile) to what "+
			"the edges sign with, or backend.trusted_edges (TrustedEdges) to the networks that only edges are in, or listen on 127.0.0.1", c.Listen)
	}
	for i, network := range c.TrustedEdges {
		if !network.IsValid() {
			bad(fmt.Sprintf("backend.trusted_edges[%d]", i), "no network, like 10.0.0.0/8")
		}
	}
	if c.PublicURL == "" {
		return errors.Join(problems...)
	}
	switch u, err := url.Parse(c.PublicURL); {
	case err != nil || u.Scheme != "ws" && u.Scheme != "wss" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		bad("backend.public_url", "%q; want ws:// or wss://, a host, and no more than a path", c.PublicURL)
	case c.EdgeSecretFile == "":
		bad("backend.public_url", "clients that connect without an edge show tickets; set backend.edge_secret_file (EdgeSecretFile)")
	case len(c.TrustedEdges) > 0:
		bad("backend.public_url", "is set, and so is backend.trusted_edges: what passes clients on to this member would be believed like an edge; leave one out")
	}
	return errors.Join(problems...)
}

func isWildcard(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}
