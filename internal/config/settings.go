package config

import (
	"time"

	"go.yaml.in/yaml/v3"
)

// Settings is the file's shape; its keys are the koanf tags. What is absent is zero, and takes the default of the package it is for. A field with the
// tag is:"file" names a file whose change is a change of the configuration, too. The tags and the comments make the schema; see [Schema].
type Settings struct {
	Listen         []Listen           `koanf:"listen"`
	Admin          Admin              `koanf:"admin"`
	Consul         *Consul            `koanf:"consul"`
	Backends       string             `koanf:"backends"` // ID=HOST:PORT[/RPCPORT][*WEIGHT],...
	Registry       string             `koanf:"registry"` // path of a registry file
	Routes         []Route            `koanf:"routes"`   // default: one that takes every host and path
	Services       map[string]Service `koanf:"services"`
	Auth           Auth               `koanf:"auth"`
	Limits         Limits             `koanf:"limits"`
	AccessLog      AccessLog          `koanf:"access_log"`
	TrustedProxies []string           `koanf:"trusted_proxies"` // addresses and networks whose word on X-Forwarded-* is taken
	Backend        Backend            `koanf:"backend"`
	Tracing        Tracing            `koanf:"tracing"`
	Bridge         Bridge             `koanf:"bridge"`
	Engine         string             `koanf:"engine" oneof:"auto splice copy"` // how tunnels move bytes
	Name           string             `koanf:"name"`                            // X-Selvedge-Edge
	StateDir       string             `koanf:"state_dir"`                       // directory for what must be known after a restart
	DrainDelay     time.Duration      `koanf:"drain_delay"`                     // how long an edge takes connections yet when readiness fails already; default 1s
	DrainTimeout   time.Duration      `koanf:"drain_timeout"`                   // how long sessions may go on after SIGTERM; default 60s

	has      func(key string) bool
	file     string // for errors; "": none
	document yaml.Node
	seen     map[string]content // the files that were read, this one and those that it names
}

// Listen is one address that clients connect to.
type Listen struct {
	Addr          string `koanf:"addr"` // host:port; port 0: any free one
	TLS           *TLS   `koanf:"tls"`
	ProxyProtocol bool   `koanf:"proxy_protocol"` // connections begin with a PROXY header, from trusted_proxies
	RedirectHTTPS bool   `koanf:"redirect_https"` // of one without TLS
}

// TLS is how a listener talks to clients.
type TLS struct {
	Certs      []Cert `koanf:"certs"`
	ClientCA   string `koanf:"client_ca" is:"file"`
	TicketKeys string `koanf:"ticket_keys" is:"file"` // file of 32-byte keys, one to a line
}

// Empty tells whether nothing is set, which is the same as no TLS.
func (t *TLS) Empty() bool {
	return t == nil || len(t.Certs) == 0 && t.ClientCA == "" && t.TicketKeys == ""
}

// Cert names the files of a certificate and its key.
type Cert struct {
	Cert string `koanf:"cert" is:"file"`
	Key  string `koanf:"key" is:"file"`
}

// MemberTLS is how an edge talks TLS to the members of a service.
type MemberTLS struct {
	CA         string `koanf:"ca" is:"file"`
	Cert       string `koanf:"cert" is:"file"`
	Key        string `koanf:"key" is:"file"`
	ServerName string `koanf:"server_name"`
}

// Admin is the operator's listener.
type Admin struct {
	Addr      string     `koanf:"addr"`
	TokenFile string     `koanf:"token_file" is:"file"`
	TLS       *ServerTLS `koanf:"tls"` // of an edge
}

// ServerTLS is how a listener of operators and programs talks TLS.
type ServerTLS struct {
	Cert     string `koanf:"cert" is:"file"`
	Key      string `koanf:"key" is:"file"`
	ClientCA string `koanf:"client_ca" is:"file"` // who signs the certificates that clients must show
}

// Empty tells whether nothing is set, which is the same as no TLS.
func (t *ServerTLS) Empty() bool { return t == nil || *t == ServerTLS{} }

// RPCTLS is how the members of a service talk TLS, to senders and to each other.
type RPCTLS struct {
	Cert       string `koanf:"cert" is:"file"` // shown to senders and to other members
	Key        string `koanf:"key" is:"file"`
	ClientCA   string `koanf:"client_ca" is:"file"` // who signs the certificates that senders must show
	CA         string `koanf:"ca" is:"file"`        // who signs the members' certificates; default: client_ca, else the system's
	ServerName string `koanf:"server_name"`         // that the members' certificates must have; default: the host of the member's address
}

// Empty tells whether nothing is set, which is the same as no TLS.
func (t *RPCTLS) Empty() bool { return t == nil || *t == RPCTLS{} }

// Consul says how to reach Consul.
type Consul struct {
	Addr       string `koanf:"addr"`
	TokenFile  string `koanf:"token_file" is:"file"`
	Datacenter string `koanf:"datacenter"`
	Tag        string `koanf:"tag"`
	Stale      bool   `koanf:"stale"`
}

// Route sends requests to a service.
type Route struct {
	Host      string        `koanf:"host"`       // chat.example.com, *.example.com, or none: any
	Path      string        `koanf:"path"`       // prefix, compared after percent-decoding; default /
	Service   string        `koanf:"service"`    // default: default
	Key       string        `koanf:"key"`        // who the user is: query:NAME, header:NAME, cookie:NAME, path:N, jwt:CLAIM, ip, none; several by comma
	Timeout   time.Duration `koanf:"timeout"`    // of plain HTTP, to the first byte of the answer; default 60s
	BodyBytes int64         `koanf:"body_bytes"` // largest request body; 0: no limit

	RequestHeaders  FieldRules `koanf:"request_headers"`
	ResponseHeaders FieldRules `koanf:"response_headers"`
}

// FieldRules change the header fields of what passes.
type FieldRules struct {
	Set    map[string]string `koanf:"set"`
	Remove []string          `koanf:"remove"`
}

// Service is how the members of a service are treated: by an edge, but for PanicThreshold, which counts wherever they are watched.
type Service struct {
	OnMove          string        `koanf:"on_move" oneof:"keep close"`   // what becomes of sessions whose user has another owner now
	ConnectTimeout  time.Duration `koanf:"connect_timeout"`              // to one member; default 1s
	ResponseTimeout time.Duration `koanf:"response_timeout"`             // for the head of the answer to an upgrade; default 5s
	Retries         int           `koanf:"retries"`                      // successors tried after the owner; default 2, below 0: none
	EdgeSecretFile  string        `koanf:"edge_secret_file" is:"file"`   // shared with the members; it signs requests to them
	TLS             *MemberTLS    `koanf:"tls"`                          // to the members' listeners
	RPCTLS          *MemberTLS    `koanf:"rpc_tls"`                      // to their RPC, where backend.rpc.tls is set there; of edges, bridges and doctor
	ProxyProtocol   string        `koanf:"proxy_protocol" oneof:"v1 v2"` // the PROXY header that members get; none: none
	SourceAddresses []string      `koanf:"source_addresses"`
	RingSecretFile  string        `koanf:"ring_secret_file" is:"file"` // 16 or more random bytes, which all who make the ring must have
	PanicThreshold  *float64      `koanf:"panic_threshold"`            // share of members, 0 to 1; 0: off
	HealthCheck     HealthCheck   `koanf:"health_check"`
}

// HealthCheck is how an edge checks members that are not in Consul.
type HealthCheck struct {
	HTTP     string        `koanf:"http"`     // path that GET answers with 200 to 399
	TCP      bool          `koanf:"tcp"`      // a connection that comes about is enough
	Interval time.Duration `koanf:"interval"` // between checks of one member; default 2s
	Timeout  time.Duration `koanf:"timeout"`  // of one check; default 1s
	Rise     int           `koanf:"rise"`     // good checks in a row that bring a member back; default 2
	Fall     int           `koanf:"fall"`     // bad checks in a row that take it out; default 3
}

// Auth says whose tokens are believed, for routes whose key is jwt:CLAIM.
type Auth struct {
	JWKS               string   `koanf:"jwks"` // path, or https URL
	Issuer             string   `koanf:"issuer"`
	Audience           string   `koanf:"audience"`
	Algorithms         []string `koanf:"algorithms"`
	Token              string   `koanf:"token"`                 // header, cookie:NAME, query:NAME, protocol; several by comma
	EndSessionAtExpiry *bool    `koanf:"end_session_at_expiry"` // true by default
}

// Limits are per process.
type Limits struct {
	Sessions          int           `koanf:"sessions"`            // 0: what the limit of descriptors leaves room for
	PerUser           int           `koanf:"per_user"`            // sessions
	PerIP             int           `koanf:"per_ip"`              // sessions; IPv6 by /64
	UpgradesPerSecond float64       `koanf:"upgrades_per_second"` // let in, a hundredth of them at once; more wait up to a second
	HeaderBytes       int           `koanf:"header_bytes"`        // largest request head; default 16384
	IdleTimeout       time.Duration `koanf:"idle_timeout"`
	Origins           []string      `koanf:"origins"` // https://app.example.com, https://*.example.com
	Allow             []string      `koanf:"allow"`   // addresses and networks
	Deny              []string      `koanf:"deny"`
}

// AccessLog is where an edge writes a line for each session and request.
type AccessLog struct {
	Path   string  `koanf:"path"`   // file, or stdout; none: no log
	Sample float64 `koanf:"sample"` // share that has a line, above 0, to 1; none: all
}

// Tracing says where spans of pushes go. It is read at the start, and not at reloads. OpenTelemetry's environment variables count, too.
type Tracing struct {
	OTLP   string  `koanf:"otlp"`   // URL of a collector that takes OTLP over HTTP, such as http://127.0.0.1:4318; none: nothing is traced
	Sample float64 `koanf:"sample"` // share of the traces that begin here which are kept, above 0, to 1; none: all
}

// Backend is for `selvedge backend`.
type Backend struct {
	ID        string `koanf:"id"`
	Listen    string `koanf:"listen"`
	Advertise string `koanf:"advertise"`
	PublicURL string `koanf:"public_url"` // under which clients reach this member by itself
	Service   string `koanf:"service"`
	Weight    int    `koanf:"weight"`
	OnMove    string `koanf:"on_move" oneof:"range all keep"` // which sessions move when the ring changes
	Move      Move   `koanf:"move"`
	RPC       RPC    `koanf:"rpc"`

	EdgeSecretFile string   `koanf:"edge_secret_file" is:"file"` // shared with the edges, which sign with it
	TrustedEdges   []string `koanf:"trusted_edges"`              // networks of edges that are believed without a signature

	MessageBytes int    `koanf:"message_bytes"`
	QueueBytes   int    `koanf:"queue_bytes"`
	OnFull       string `koanf:"on_full" oneof:"close drop"` // what happens when queue_bytes are reached

	Limits      BackendLimits `koanf:"limits"`
	Compress    bool          `koanf:"compress"`
	PingEvery   time.Duration `koanf:"ping_every"` // below 0: never
	PongTimeout time.Duration `koanf:"pong_timeout"`
}

// BackendLimits bound what clients may take of a member's process.
type BackendLimits struct {
	Sessions          int     `koanf:"sessions"` // 0: what the limit of descriptors leaves room for
	PerUser           int     `koanf:"per_user"`
	MessagesPerSecond float64 `koanf:"messages_per_second"` // of one session
}

// Move is the pace at which sessions are closed when their users move.
type Move struct {
	Spread       time.Duration `koanf:"spread"`
	MaxPerSecond float64       `koanf:"max_per_second"`
	Grace        time.Duration `koanf:"grace"` // how long a push waits for a session that was sent to its new home
}

// RPC is the listener of the push service.
type RPC struct {
	Addr          string  `koanf:"addr"`
	TokenFile     string  `koanf:"token_file" is:"file"`
	PeerTokenFile string  `koanf:"peer_token_file" is:"file"`
	TLS           *RPCTLS `koanf:"tls"`           // of all members or none
	TrustRefused  *bool   `koanf:"trust_refused"` // a refused connection proves that the process has ended; false behind address translation
}

// Bridge is for `selvedge bridge`. One of redis, amqp and nats is given.
type Bridge struct {
	Redis    string `koanf:"redis"`    // redis://HOST:PORT/DB, rediss:// with TLS
	AMQP     string `koanf:"amqp"`     // amqp://HOST:PORT/VHOST of a RabbitMQ, amqps:// with TLS
	NATS     string `koanf:"nats"`     // nats://HOST:PORT, tls://; several by comma
	Channel  string `koanf:"channel"`  // of Redis pub/sub
	Stream   string `koanf:"stream"`   // of Redis, or of JetStream
	Group    string `koanf:"group"`    // that bridges share: of consumers in Redis, a durable consumer in JetStream, a queue group in NATS; default selvedge
	Field    string `koanf:"field"`    // of a Redis stream's entries that holds the body; default: all of them as a JSON object
	Queue    string `koanf:"queue"`    // that all bridges share; declared durable where it is not there
	Exchange string `koanf:"exchange"` // that the queue is bound to; declared fanout where it is not there
	Subject  string `koanf:"subject"`  // of NATS

	User    string `koanf:"user"`    // whom a message is for: json:PATH, header:NAME, all; several by comma; default json:user
	Payload string `koanf:"payload"` // what sessions get: body, json:PATH, header:NAME; several by comma; default body
	ID      string `koanf:"id"`      // json:PATH, header:NAME; default: the broker's own
	Binary  bool   `koanf:"binary"`  // sessions get binary messages

	Offline  string        `koanf:"offline" oneof:"ack dead-letter"` // what becomes of messages to users who are offline; default ack
	Tries    int           `koanf:"tries"`                           // before a message is parked; default 10
	Timeout  time.Duration `koanf:"timeout"`                         // of one try; default 5s
	InFlight int           `koanf:"in_flight"`                       // messages taken that have no outcome yet; default 512

	Service   string `koanf:"service"`
	Via       string `koanf:"via"`                  // URL of any backend's RPC port or an edge's admin port, in place of consul, backends and registry
	TokenFile string `koanf:"token_file" is:"file"` // of the push service; default: SELVEDGE_TOKEN
}
