package config

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "edge.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const sample = `
listen:
  - {addr: ":8080"}
  - {addr: ":8090"}
admin: {addr: "127.0.0.1:8081"}
consul: {addr: "127.0.0.1:8500", stale: true}
routes:
  - {host: chat.example.com, path: /ws, service: chat, key: "query:user"}
  - {path: /, service: chat, key: none, timeout: 30s, body_bytes: 1048576,
     request_headers: {set: {X-Env: prod, X-Level: 3}, remove: [Cookie]}, response_headers: {remove: [Server]}}
services:
  chat: {connect_timeout: 2s, retries: 3, on_move: close, panic_threshold: 0}
  game: {panic_threshold: 0.8}
  web: {retries: 1}
backend: {id: b1, weight: 2, move: {spread: 20s, max_per_second: 0.1, grace: 3s}, rpc: {addr: "127.0.0.1:9100", trust_refused: false}}
drain_timeout: 45s
access_log: {path: stdout, sample: 0.1}
`

func TestLaterSourcesWin(t *testing.T) {
	s, err := Load(Sources{
		File:  write(t, sample),
		Env:   []string{"SELVEDGE_ADMIN__ADDR=127.0.0.1:9", "SELVEDGE_BACKEND__WEIGHT=7", "SELVEDGE_DRAIN_TIMEOUT=5s", "SELVEDGE_SERVICE_HOST=10.0.0.1", "PATH=/bin"},
		Flags: map[string]any{"drain_timeout": 3 * time.Second, "engine": "copy"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.Admin.Addr != "127.0.0.1:9" || s.Backend.Weight != 7 {
		t.Errorf("the environment did not win over the file: %+v, %+v", s.Admin, s.Backend)
	}
	if s.DrainTimeout != 3*time.Second || s.Engine != "copy" {
		t.Errorf("the flags did not win: %v, %q", s.DrainTimeout, s.Engine)
	}
	if len(s.Listen) != 2 || s.Listen[1].Addr != ":8090" || !s.Consul.Stale || s.AccessLog != (AccessLog{"stdout", 0.1}) || s.Backend.ID != "b1" {
		t.Errorf("the file's own settings: %+v", s)
	}
	if r := s.Routes[1]; r.Timeout != 30*time.Second || r.BodyBytes != 1<<20 || r.Key != "none" {
		t.Errorf("route: %+v", r)
	}
	r := s.Routes[1]
	if !maps.Equal(r.RequestHeaders.Set, map[string]string{"X-Env": "prod", "X-Level": "3"}) || r.RequestHeaders.Remove[0] != "Cookie" || r.ResponseHeaders.Remove[0] != "Server" {
		t.Errorf("rules: %+v, %+v", r.RequestHeaders, r.ResponseHeaders)
	}
	if v := s.Services["chat"]; v.ConnectTimeout != 2*time.Second || v.Retries != 3 || v.OnMove != "close" {
		t.Errorf("service: %+v", v)
	}
	m, err := s.Membership()
	if want := map[string]float64{"chat": 0, "game": 0.8}; err != nil || !maps.Equal(m.Consul.PanicThreshold, want) {
		t.Errorf("panic thresholds: %+v, %v; want %v", m.Consul, err, want)
	}
	if trust := s.Backend.RPC.TrustRefused; trust == nil || *trust {
		t.Errorf("trust_refused: %v", trust)
	}
	if m := s.Backend.Move; m.Spread != 20*time.Second || m.MaxPerSecond != 0.1 || m.Grace != 3*time.Second {
		t.Errorf("move: %+v", m)
	}
}

func TestErrorsSayWhere(t *testing.T) {
	for _, test := range []struct {
		name, text string
		wants      []string
	}{
		{"unknown key", "admin:\n  adr: x\n", []string{"edge.yaml:2", "admin.adr", "did you mean addr?"}},
		{"unknown key in a list", "routes:\n  - path: /\n  - pth: /\n", []string{"edge.yaml:3", "routes[1].pth", "did you mean path?"}},
		{"unknown key in a map", "services:\n  chat:\n    retrys: 1\n", []string{"edge.yaml:3", "services.chat.retrys", "did you mean retries?"}},
		{"wrong kind", "limits:\n  header_bytes: many\n", []string{"edge.yaml:2", "limits.header_bytes"}},
		{"bad duration", "routes:\n  - timeout: soon\n", []string{"edge.yaml:2", "routes[0].timeout"}},
		{"no YAML", "routes: [\n", []string{"edge.yaml", "line"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Load(Sources{File: write(t, test.text), Env: []string{}})
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.wants {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
	if _, err := Load(Sources{File: "/does/not/exist", Env: []string{}}); err == nil || !strings.Contains(err.Error(), "/does/not/exist") {
		t.Errorf("missing file: %v", err)
	}
	if _, err := Load(Sources{Env: []string{"SELVEDGE_BACKEND__WEIGHT=heavy"}}); err == nil || !strings.Contains(err.Error(), "weight") {
		t.Errorf("bad variable: %v", err)
	}
}

func TestPanicThresholdIsAShare(t *testing.T) {
	for _, value := range []string{"-0.1", "1.1", "50", ".nan"} {
		s, err := Load(Sources{File: write(t, "services: {chat: {panic_threshold: "+value+"}}"), Env: []string{}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Membership(); err == nil || !strings.Contains(err.Error(), "services.chat.panic_threshold") {
			t.Errorf("%s: %v", value, err)
		}
	}
}

func TestNothingIsDefault(t *testing.T) {
	s, err := Load(Sources{Env: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.Membership()
	if err != nil || m.Consul == nil || m.Backends != "" {
		t.Errorf("membership without settings: %+v, %v; want the local Consul", m, err)
	}
	s, err = Load(Sources{File: write(t, "# nothing\n"), Env: []string{}})
	if err != nil || s.Engine != "" {
		t.Errorf("empty file: %+v, %v", s, err)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(sample)
	f.Add("admin: &a {addr: x}\nconsul: *a\n")
	f.Add("routes: {a: b}")
	f.Fuzz(func(t *testing.T, text string) {
		_, _ = Load(Sources{File: write(t, text), Env: []string{}}) // must return
	})
}
