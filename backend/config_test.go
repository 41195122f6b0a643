package backend

import (
	"errors"
	"math"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/selvedge/selvedge/internal/discovery"
)

func TestConfigDefaults(t *testing.T) {
	host, _ := os.Hostname()
	c := Config{}.withDefaults()
	if c.ID != host || c.Service != "default" || c.Listen != ":9000" || c.RPC != "127.0.0.1:9100" || c.Admin != "" || c.Weight != 1 ||
		c.Device != "query:device" || c.MessageBytes != 1<<20 || c.QueueBytes != 256<<10 || c.HandshakeTimeout != 5*time.Second ||
		c.OnFull != FullClose || c.PingEvery != 30*time.Second || c.PongTimeout != 10*time.Second || c.OnMove != MoveRange || c.Move != (Pace{2 * time.Second, 10 * time.Second, 0.05, 2 * time.Second}) || c.DrainTimeout != time.Minute ||
		c.Metrics == nil || c.Logger == nil {
		t.Errorf("defaults: %+v", c)
	}
	if err := c.check(); err == nil || !strings.Contains(err.Error(), "edge_secret_file") || strings.Contains(err.Error(), "\n") {
		t.Errorf("the defaults want to know whom to trust, and nothing else: %v", err)
	}
	if c := (Config{PingEvery: 4 * time.Second}).withDefaults(); c.PongTimeout != 2*time.Second {
		t.Errorf("pinged every 4 s, the answer is waited for %v", c.PongTimeout)
	}
	if n := c.Limits.Sessions; n < 100 || c.Limits != (Limits{Sessions: n}) {
		t.Errorf("default limits: %+v", c.Limits)
	}
	set := Config{ID: "b7", Service: "chat", Weight: 9, QueueBytes: 1, Move: Pace{Spread: time.Hour}}.withDefaults()
	if set.ID != "b7" || set.Service != "chat" || set.Weight != 9 || set.QueueBytes != 1 || set.Move.Spread != time.Hour {
		t.Errorf("what is set was changed: %+v", set)
	}
}

func TestConfigCheck(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Config)
		want   []string // parts of the error; none: it is accepted
	}{
		{"as it is", func(*Config) {}, nil},
		{"no id", func(c *Config) { c.ID = "" }, []string{"backend.id", "name the member"}},
		{"weight 0", func(c *Config) { c.Weight = -1 }, []string{"backend.weight: -1", "1 to 1,000"}},
		{"weight 1001", func(c *Config) { c.Weight = 1001 }, []string{"backend.weight: 1001"}},
		{"weight 1000", func(c *Config) { c.Weight = 1000 }, nil},
		{"on_move", func(c *Config) { c.OnMove = "some" }, []string{`backend.on_move: "some"`, "range, all or keep"}},
		{"on_move all", func(c *Config) { c.OnMove = MoveAll }, nil},
		{"share above 1", func(c *Config) { c.Move.MaxPerSecond = 5 }, []string{"backend.move.max_per_second: 5", "0 to 1"}},
		{"share below 0", func(c *Config) { c.Move.MaxPerSecond = -.1 }, []string{"backend.move.max_per_second"}},
		{"message bytes", func(c *Config) { c.MessageBytes = -1 }, []string{"backend.message_bytes"}},
		{"queue bytes", func(c *Config) { c.QueueBytes = -1 }, []string{"backend.queue_bytes"}},
		{"settle", func(c *Config) { c.Move.Settle = -1 }, []string{"backend.move.settle", "above 0"}},
		{"drain timeout", func(c *Config) { c.DrainTimeout = -1 }, []string{"drain_timeout"}},
		{"limit below 0", func(c *Config) { c.Limits.PerUser = -1 }, []string{"backend.limits"}},
		{"rate that is no number", func(c *Config) { c.Limits.MessagesPerSecond = math.NaN() }, []string{"backend.limits"}},
		{"rate above the clock's", func(c *Config) { c.Limits.MessagesPerSecond = 1e7 }, []string{"1,000,000"}},
		{"on_full", func(c *Config) { c.OnFull = "wait" }, []string{`backend.on_full: "wait"`, "close or drop"}},
		{"on_full drop", func(c *Config) { c.OnFull = FullDrop }, nil},
		{"pong timeout", func(c *Config) { c.PongTimeout = 25 * time.Second }, []string{"backend.pong_timeout: 25s", "4/5 of ping_every (30s)"}},
		{"longest pong timeout", func(c *Config) { c.PongTimeout = 24 * time.Second }, nil},
		{"pong timeout below 0", func(c *Config) { c.PongTimeout = -1 }, []string{"backend.pong_timeout"}},
		{"no pings", func(c *Config) { c.PingEvery, c.PongTimeout = -1, 0 }, nil},
		{"device", func(c *Config) { c.Device = "nonsense" }, []string{"backend.device"}},
		{"RPC off loopback", func(c *Config) { c.RPC = "10.0.0.1:9100" }, []string{"backend.rpc.token_file", "backend.rpc.peer_token_file", "127.0.0.1"}},
		{"RPC off loopback, half the tokens", func(c *Config) { c.RPC, c.RPCToken = "10.0.0.1:9100", "t" }, []string{"peer_token_file"}},
		{"RPC off loopback, tokens", func(c *Config) { c.RPC, c.RPCToken, c.PeerToken = "10.0.0.1:9100", "t", "p" }, nil},
		{"RPC off loopback, certificates", func(c *Config) { c.RPC, c.RPCTLS = "10.0.0.1:9100", &RPCTLS{Cert: "c", Key: "k", ClientCA: "a"} }, nil},
		{"RPC off loopback, only one side shows a certificate", func(c *Config) { c.RPC, c.RPCTLS = "10.0.0.1:9100", &RPCTLS{Cert: "c", Key: "k"} },
			[]string{"backend.rpc.token_file", "backend.rpc.tls.client_ca"}},
		{"RPC without a certificate", func(c *Config) { c.RPCTLS = &RPCTLS{ClientCA: "a"} }, []string{"backend.rpc.tls: no certificate"}},
		{"RPC on IPv6 loopback", func(c *Config) { c.RPC = "[::1]:9100" }, nil},
		{"RPC everywhere", func(c *Config) { c.RPC, c.RPCToken, c.PeerToken = ":9100", "t", "p" }, []string{"backend.advertise"}},
		{"RPC everywhere, advertised", func(c *Config) { c.RPC, c.RPCToken, c.PeerToken, c.Advertise = ":9100", "t", "p", "h" }, nil},
		{"RPC is no address", func(c *Config) { c.RPC = "nine" }, []string{"no host:port"}},
		{"off loopback", func(c *Config) { c.Listen = "10.0.0.1:9000" }, []string{"backend.listen", "backend.edge_secret_file", "backend.trusted_edges", "127.0.0.1"}},
		{"off loopback by name", func(c *Config) { c.Listen = "b1.example.com:9000" }, []string{"backend.listen"}},
		{"off loopback, secret", func(c *Config) { c.Listen, c.EdgeSecretFile = ":9000", "f" }, nil},
		{"off loopback, networks", func(c *Config) { c.Listen, c.TrustedEdges = ":9000", loopback }, nil},
		{"no network", func(c *Config) { c.TrustedEdges = make([]netip.Prefix, 1) }, []string{"backend.trusted_edges[0]"}},
		{"public URL", func(c *Config) { c.PublicURL, c.EdgeSecretFile = "wss://b1.example.com/b1", "f" }, nil},
		{"public URL, no secret", func(c *Config) { c.PublicURL = "wss://b1.example.com" }, []string{"edge_secret_file"}},
		{"public URL, networks", func(c *Config) { c.PublicURL, c.EdgeSecretFile, c.TrustedEdges = "wss://h", "f", loopback }, []string{"backend.public_url", "leave one out"}},
		{"public URL of HTTP", func(c *Config) { c.PublicURL, c.EdgeSecretFile = "https://h", "f" }, []string{"ws:// or wss://"}},
		{"admin off loopback", func(c *Config) { c.Admin = ":8081" }, []string{"admin.token_file"}},
		{"admin off loopback, token", func(c *Config) { c.Admin, c.AdminToken = ":8081", "t" }, nil},
	} {
		c := Config{ID: "b1", Listen: "127.0.0.1:9000"}.withDefaults()
		test.change(&c)
		err := c.check()
		if (err == nil) != (test.want == nil) {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		for _, part := range test.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q does not say %q", test.name, err, part)
			}
		}
	}
	// All at once.
	err := Config{Weight: -1, OnMove: "x", Device: "x"}.withDefaults().check()
	for _, part := range []string{"backend.weight", "backend.on_move", "backend.device"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %s", err, part)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(Config{ID: "b1"}); err == nil {
		t.Error("no membership, and no error")
	}
	cfg := Config{ID: "b1", Listen: "127.0.0.1:0", Membership: Membership{Memory: discovery.NewMemory()}, Metrics: prometheus.NewRegistry()}
	if _, err := New(cfg); err != nil {
		t.Fatal(err)
	}
	secretless := cfg
	secretless.EdgeSecretFile = "/does/not/exist"
	if _, err := New(secretless); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a secret file that is not there: %v", err)
	}
	certless := cfg
	certless.RPCTLS = &RPCTLS{Cert: "/does/not/exist", Key: "/does/not/exist"}
	if _, err := New(certless); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "backend.rpc.tls.cert") {
		t.Errorf("a certificate that is not there: %v", err)
	}
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "metrics") {
		t.Errorf("two members, one registry: %v", err)
	}
}
