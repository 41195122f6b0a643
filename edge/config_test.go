package edge

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestConfigRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		says   string
	}{
		"no membership": {func(c *Config) { c.Membership = Membership{} }, "name exactly one"},
		"a list for two services": {func(c *Config) {
			c.Membership = Membership{Backends: "b1=127.0.0.1:1"}
			c.Routes = []Route{{Path: "/", Service: "a"}, {Path: "/b", Service: "b"}}
		}, "registry file"},
		"bad list":        {func(c *Config) { c.Membership = Membership{Backends: "b1"} }, "members of service"},
		"listen":          {func(c *Config) { c.Listen = []Listener{{Addr: "8080"}} }, "HOST:PORT"},
		"admin":           {func(c *Config) { c.Admin.Addr = "8081" }, "HOST:PORT"},
		"open admin":      {func(c *Config) { c.Admin.Addr = ":8081" }, "set admin.token_file"},
		"open admin 2":    {func(c *Config) { c.Admin.Addr = "0.0.0.0:8081" }, "set admin.token_file"},
		"open admin 3":    {func(c *Config) { c.Admin.Addr = "example.com:8081" }, "set admin.token_file"},
		"key":             {func(c *Config) { c.Routes = []Route{{Key: "user"}} }, "query:NAME"},
		"token":           {func(c *Config) { c.Routes = []Route{{Key: "jwt:sub"}} }, "needs `auth`"},
		"mixed":           {func(c *Config) { c.Routes = []Route{{Key: "jwt:sub,query:u"}} }, "unverified"},
		"path":            {func(c *Config) { c.Routes = []Route{{Path: "ws"}} }, "starts with /"},
		"unclean path":    {func(c *Config) { c.Routes = []Route{{Path: "/a/../b"}} }, "dot segments"},
		"host with port":  {func(c *Config) { c.Routes = []Route{{Host: "a:80"}} }, "without port"},
		"host in between": {func(c *Config) { c.Routes = []Route{{Host: "a.*.b"}} }, "before a name"},
		"timeout":         {func(c *Config) { c.Routes = []Route{{Timeout: -1}} }, "negative"},
		"body":            {func(c *Config) { c.Routes = []Route{{BodyBytes: -1}} }, "negative"},
		"service":         {func(c *Config) { c.Services = map[string]ServiceConfig{"default": {ConnectTimeout: -1}} }, "negative"},
		"engine":          {func(c *Config) { c.Engine = "steam" }, "auto, copy or splice"},
		"head":            {func(c *Config) { c.HeaderBytes = 10 }, "1024"},
		"sessions":        {func(c *Config) { c.Sessions = -1 }, "limits.sessions"},
		"name":            {func(c *Config) { c.Name = "a\nb" }, "header field"},
		"proxies":         {func(c *Config) { c.TrustedProxies = []netip.Prefix{{}} }, "trusted_proxies[0]"},
	} {
		cfg := Config{Membership: members()}
		c.change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v, want one that says %q", name, err, c.says)
		}
	}
}

func TestConfigSaysAllAtOnce(t *testing.T) {
	_, err := New(Config{Membership: members(), Engine: "steam", HeaderBytes: 1, Routes: []Route{{}, {Path: "x"}}})
	for _, want := range []string{"engine", "limits.header_bytes", "routes[1].path"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

func TestConfigDefaults(t *testing.T) {
	e, err := New(Config{Membership: members(), Services: map[string]ServiceConfig{DefaultService: {ConnectTimeout: time.Minute}}})
	if err != nil {
		t.Fatal(err)
	}
	s := e.service(DefaultService).cfg
	if s.ConnectTimeout != time.Minute || s.ResponseTimeout != 5*time.Second || s.attempts() != 3 || e.cfg.Listen[0].Addr != ":8080" ||
		e.cfg.Admin.Addr != "127.0.0.1:8081" || e.cfg.DrainTimeout != time.Minute || e.cfg.HeaderBytes != 16384 || e.cfg.Name == "" {
		t.Errorf("%+v", e.cfg)
	}
	for _, open := range []Admin{{Addr: "localhost:0"}, {Addr: "[::1]:0"}, {Addr: ":0", Token: "x"}, {Addr: "off"}} {
		if _, err := New(Config{Membership: members(), Admin: open}); err != nil {
			t.Errorf("%+v: %v", open, err)
		}
	}
}

// What the caller changes after New changes nothing.
func TestConfigIsCopied(t *testing.T) {
	cfg := Config{Membership: members(), Routes: []Route{{Path: "/a"}}, Services: map[string]ServiceConfig{DefaultService: {Retries: 1}}}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Routes[0].Service != "" || cfg.Services[DefaultService].ConnectTimeout != 0 {
		t.Error("New wrote into the caller's config")
	}
	cfg.Routes[0].Path = "/b"
	cfg.Services[DefaultService] = ServiceConfig{Retries: 7}
	if e.cfg.Routes[0].Path != "/a" || e.cfg.Services[DefaultService].Retries != 1 {
		t.Error("the edge saw the change")
	}
}
