package admin_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/selvedge/selvedge/internal/admin"
)

func TestCheckExposure(t *testing.T) {
	for _, test := range []struct {
		addr, token string
		ok          bool
	}{
		{"", "", true}, {"127.0.0.1:1", "", true}, {"127.9.9.9:1", "", true}, {"[::1]:1", "", true}, {"localhost:1", "", true},
		{":1", "", false}, {"0.0.0.0:1", "", false}, {"[::]:1", "", false}, {"10.0.0.1:1", "", false}, {"example.org:1", "", false},
		{"localhost.example.org:1", "", false}, {"[::ffff:127.0.0.1]:1", "", true}, {"[::ffff:10.0.0.1]:1", "", false},
		{"nonsense", "", false}, {":1", "token", true}, {"10.0.0.1:1", "token", true},
	} {
		err := admin.CheckExposure(test.addr, test.token, "the_setting")
		if (err == nil) != test.ok {
			t.Errorf("%q, token %q: %v", test.addr, test.token, err)
		}
		if err != nil && test.addr != "nonsense" && !strings.Contains(err.Error(), "set the_setting") {
			t.Errorf("%q: %q does not say what to set", test.addr, err)
		}
	}
}

func TestRequireToken(t *testing.T) {
	passed := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	for _, test := range []struct {
		token, header string
		status        int
	}{
		{"", "", 418}, {"", "Bearer x", 418},
		{"s3cret", "Bearer s3cret", 418}, {"s3cret", "bearer s3cret", 418},
		{"s3cret", "", 401}, {"s3cret", "s3cret", 401}, {"s3cret", "Bearer", 401}, {"s3cret", "Bearer ", 401},
		{"s3cret", "Bearer s3cre", 401}, {"s3cret", "Bearer s3cret ", 401}, {"s3cret", "Bearer  s3cret", 401}, {"s3cret", "Basic s3cret", 401},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		if test.header != "" {
			r.Header.Set("Authorization", test.header)
		}
		w := httptest.NewRecorder()
		admin.RequireToken(test.token, passed).ServeHTTP(w, r)
		if w.Code != test.status {
			t.Errorf("token %q, header %q: %d, want %d", test.token, test.header, w.Code, test.status)
		}
		if w.Code == 401 && (w.Header().Get("WWW-Authenticate") == "" || strings.Contains(w.Body.String(), "s3cret")) {
			t.Errorf("401 with %v, %q", w.Header(), w.Body)
		}
	}
}

func TestReadToken(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, test := range []struct {
		path, want, problem string
	}{
		{"", "", ""}, {file("good", " s3cret\n"), "s3cret", ""},
		{file("empty", "\n \n"), "", "is empty"}, {filepath.Join(dir, "none"), "", "token file"},
	} {
		got, err := admin.ReadToken(test.path)
		if got != test.want || (err == nil) != (test.problem == "") || err != nil && !strings.Contains(err.Error(), test.problem) {
			t.Errorf("%s: %q, %v", test.path, got, err)
		}
	}
}

func TestHandler(t *testing.T) {
	notReady := errors.New("draining")
	token := func() string { return "t" }
	for _, test := range []struct {
		name   string
		cfg    admin.Config
		path   string
		status int
		text   string
	}{
		{"health", admin.Config{Token: token}, "/healthz", 200, "ok"},
		{"ready", admin.Config{Token: token, Ready: func() error { return nil }}, "/readyz", 200, ""},
		{"ready, nothing to ask", admin.Config{}, "/readyz", 200, ""},
		{"not ready", admin.Config{Ready: func() error { return notReady }}, "/readyz", 503, "draining"},
		{"metrics", admin.Config{}, "/metrics", 200, ""},
		{"metrics, no token shown", admin.Config{Token: token}, "/metrics", 401, ""},
		{"profiles, no token shown", admin.Config{Token: token}, "/debug/pprof/", 401, ""},
		{"profiles", admin.Config{}, "/debug/pprof/", 200, "goroutine"},
		{"no page", admin.Config{}, "/", 404, ""},
	} {
		test.cfg.Show = prometheus.NewRegistry()
		w := httptest.NewRecorder()
		admin.Handler(test.cfg).ServeHTTP(w, httptest.NewRequest(http.MethodGet, test.path, nil))
		if w.Code != test.status || !strings.Contains(w.Body.String(), test.text) {
			t.Errorf("%s: %d %.80q", test.name, w.Code, w.Body)
		}
	}
}

func TestAsk(t *testing.T) {
	ready := errors.New("draining")
	server := httptest.NewServer(admin.Handler(admin.Config{
		Token: func() string { return "t" }, Show: prometheus.NewRegistry(), Ready: func() error { return ready },
	}))
	defer server.Close()
	addr := server.Listener.Addr().String()
	ask := func(addr, path, want, problem string) {
		t.Helper()
		said, err := admin.Ask(t.Context(), addr, path)
		if said != want || (err == nil) != (problem == "") || err != nil && !strings.Contains(err.Error(), problem) {
			t.Errorf("%s%s: %q, %v", addr, path, said, err)
		}
	}
	ask(addr, "/healthz", "ok", "")
	ask(addr, "/readyz", "", "503 Service Unavailable: draining")
	ready = nil
	ask(server.URL+"/", "/readyz", "ready", "")
	server.Close()
	ask(addr, "/healthz", "", "connection refused")
	ask("a b", "/healthz", "", "invalid character")
}
