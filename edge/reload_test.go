package edge

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/testkit"
)

// reloadable is a config for [start] as a Reload must find it again.
func reloadable(registry *discovery.Memory) Config {
	return Config{
		Listen: []Listener{{Addr: "127.0.0.1:0"}}, Admin: Admin{Addr: "127.0.0.1:0"}, DrainTimeout: -1, Membership: Membership{Memory: registry},
	}
}

func TestReloadChangesRoutesAndLimits(t *testing.T) {
	registry := discovery.NewMemory()
	for _, name := range []string{"a", "b"} {
		registry.Put(name, discovery.Member{ID: name, Addr: listenBackend(t, echo(name)), Weight: 1})
	}
	cfg := reloadable(registry)
	cfg.Routes = []Route{{Service: "a"}}
	e := start(t, cfg)
	first := e.send(upgradeTo("/ws?user=u"))
	first.head()
	if got := first.line(); got != "a/u" {
		t.Fatalf("at first: %q", got)
	}
	view := e.View("a")

	next := cfg
	next.Routes = []Route{{Service: "b"}}
	next.HeaderBytes = 1024
	next.Admin.Token = "s3cret"
	next.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	if err := e.Reload(next); err != nil {
		t.Fatal(err)
	}
	c := e.send(upgradeTo("/ws?user=u"))
	c.head()
	if got := c.line(); got != "b/u" {
		t.Errorf("after the reload: %q", got)
	}
	e.send(upgradeTo("/ws?user=u", "X-Big: "+strings.Repeat("x", 2000))).refused(431)
	if code, _ := e.admin("GET", "/metrics", ""); code != 401 {
		t.Errorf("without the new token: %d", code)
	}
	if !e.live.Load().trusts(netip.MustParseAddr("127.0.0.1")) {
		t.Error("the new proxies are not trusted")
	}

	// The session goes on, and its service is followed until it ends.
	say(first, "still here\n")
	if got := first.line(); got != "still here" {
		t.Errorf("the old session says %q", got)
	}
	if e.View("a") != view {
		t.Error("a service with a session is not followed any more")
	}
	if got := e.Sessions(); got != 2 {
		t.Errorf("%d sessions, want 2", got)
	}
	_ = first.Close()
	testkit.Eventually(t, patience, func() bool { return e.View("a") == nil }, "the service without route and session is let go")

	// It comes back with members at once.
	if err := e.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	c = e.send(upgradeTo("/ws?user=u"))
	c.head()
	if got := c.line(); got != "a/u" {
		t.Errorf("back again: %q", got)
	}
}

// What a reload does not change of a service stays what it is: the ring, who is avoided, the connections kept alive.
func TestReloadKeepsServices(t *testing.T) {
	registry := discovery.NewMemory()
	registry.Put(DefaultService, discovery.Member{ID: "b0", Addr: listenBackend(t, echo("b0")), Weight: 1})
	cfg := reloadable(registry)
	e := start(t, cfg)
	was := e.service(DefaultService)
	next := cfg
	next.HeaderBytes = 2048
	if err := e.Reload(next); err != nil || e.service(DefaultService) != was {
		t.Fatalf("%v, or the service is another one though nothing of it has changed", err)
	}
	next.Services = map[string]ServiceConfig{DefaultService: {Retries: 7, OnMove: MoveClose}}
	if err := e.Reload(next); err != nil {
		t.Fatal(err)
	}
	now := e.service(DefaultService)
	if now.cfg.Retries != 7 || now.pool != was.pool || now.mover == nil {
		t.Errorf("%+v; want the new settings for the same pool", now)
	}
	next.Services = map[string]ServiceConfig{DefaultService: {Retries: 1, OnMove: MoveClose}}
	if err := e.Reload(next); err != nil || e.service(DefaultService).mover != now.mover {
		t.Errorf("%v, or the mover is another one, which knows of no session", err)
	}
}

// A token for Consul that was rotated does not keep the rest from being reloaded.
func TestReloadWithAnotherConsulToken(t *testing.T) {
	cfg := reloadable(nil)
	cfg.Membership = Membership{Consul: &discovery.ConsulConfig{Addr: deadAddr(t), Token: "old"}}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	next := cfg
	next.HeaderBytes = 2048
	next.Membership = Membership{Consul: &discovery.ConsulConfig{Addr: cfg.Membership.Consul.Addr, Token: "new"}}
	if err := e.Reload(next); err != nil || e.live.Load().headerBytes != 2048 {
		t.Errorf("with another token: %v", err)
	}
	next.Membership = Membership{Consul: &discovery.ConsulConfig{Addr: "127.0.0.1:1", Token: "old"}}
	if err := e.Reload(next); err == nil {
		t.Error("with another Consul: no error")
	}
}

// An error names what is wrong, and nothing has changed: neither what is asked for nor what else the config says.
func TestReloadIsAllOrNothing(t *testing.T) {
	registry := discovery.NewMemory()
	registry.Put(DefaultService, discovery.Member{ID: "b0", Addr: listenBackend(t, echo("b0")), Weight: 1})
	cfg := reloadable(registry)
	e := start(t, cfg)
	before := e.live.Load()
	for name, test := range map[string]struct {
		change func(*Config)
		says   string
	}{
		"listen":      {func(c *Config) { c.Listen = []Listener{{Addr: "127.0.0.1:1"}} }, "listen"},
		"admin":       {func(c *Config) { c.Admin.Addr = "off" }, "admin.addr"},
		"members":     {func(c *Config) { c.Membership = members("127.0.0.1:1") }, "consul, backends"},
		"engine":      {func(c *Config) { c.Engine = "copy" }, "engine"},
		"state":       {func(c *Config) { c.StateDir = t.TempDir() }, "state_dir"},
		"name":        {func(c *Config) { c.Name = "another" }, "name"},
		"head":        {func(c *Config) { c.HeaderBytes = 1 << 20 }, "limits.header_bytes"},
		"wrong":       {func(c *Config) { c.Routes = []Route{{Path: "nonsense"}} }, "routes[0].path"},
		"two alike":   {func(c *Config) { c.Routes = []Route{{Service: "new"}, {Service: DefaultService}} }, "two routes"},
		"wrong, late": {func(c *Config) { c.Routes = []Route{{Service: "new"}, {Path: "/a", Key: "nonsense"}} }, "query:NAME"},
	} {
		next := cfg
		next.Services = map[string]ServiceConfig{DefaultService: {ConnectTimeout: time.Minute}}
		test.change(&next)
		if err := e.Reload(next); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want an error that says %q", name, err, test.says)
		}
		if e.live.Load() != before || len(e.followed()) != 1 || e.metric(`selvedge_ring_members{service="new"}`) != "absent" {
			t.Fatalf("%s: something has changed all the same", name)
		}
	}
	e.stop()
	_ = e.wait()
	if err := e.Reload(cfg); err == nil || !strings.Contains(err.Error(), "draining") {
		t.Errorf("after the end: %v", err)
	}
}
