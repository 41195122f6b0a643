package doctor

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/config"
)

// healthyHost is one that nothing is to be said of.
func healthyHost() (env, map[string][]int) {
	values := map[string][]int{
		"net.ipv4.ip_local_port_range": {32768, 60999}, "net.core.somaxconn": {4096},
		"fs.pipe-user-pages-soft": {16384}, "fs.pipe-user-pages-hard": {0},
	}
	return env{
		sysctl: func(name string) ([]int, error) {
			if v, there := values[name]; there {
				return v, nil
			}
			return nil, errors.New("no such file")
		},
		descriptors: func() (int, error) { return 1 << 20, nil },
		now:         time.Now,
	}, values
}

// settings reads a configuration whose members are a list, so that no Consul is asked.
func settings(t *testing.T, text string) *config.Settings {
	t.Helper()
	file := filepath.Join(t.TempDir(), "selvedge.yaml")
	if err := os.WriteFile(file, []byte("backends: b1=127.0.0.1:1\nadmin: {addr: 127.0.0.1:1}\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := config.Load(config.Sources{File: file})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestHost(t *testing.T) {
	limit := func(n int) func(*env, map[string][]int) {
		return func(e *env, _ map[string][]int) { e.descriptors = func() (int, error) { return n, nil } }
	}
	set := func(name string, v ...int) func(*env, map[string][]int) {
		return func(_ *env, values map[string][]int) { values[name] = v }
	}
	for _, test := range []struct {
		name, config string
		spoil        func(*env, map[string][]int)
		check        string
		level        Level
		text, mend   string
	}{
		{"few descriptors", "", limit(1024), "descriptors", Bad, "room for 448 sessions", "ulimit -n 65536"},
		{"some descriptors", "", limit(20000), "descriptors", Warning, "room for 8750 sessions", "LimitNOFILE=65536"},
		{"no limit", "", limit(0), "descriptors", Good, "no limit", ""},
		{"enough for the configured", "limits: {sessions: 8000}\n", limit(20000), "descriptors", Good, "", ""},
		{"too few for the configured", "limits: {sessions: 9000}\n", limit(20000), "descriptors", Bad, "and the limit of sessions is 9000", "ulimit -n 207"},
		{"a backend's", "backend: {id: b1, limits: {sessions: 17000}}\n", limit(20000), "descriptors", Good, "a backend has room for 17500", ""},
		{"few ports", "", set("net.ipv4.ip_local_port_range", 50000, 50999), "ports", Bad, "1000 sessions", "source_addresses"},
		{"a port in the range", "listen: [{addr: ':40000'}]\n", set("none"), "ports", Warning, "listen[0].addr listens on port 40000", "below 32768"},
		{"a short queue", "", set("net.core.somaxconn", 128), "somaxconn", Bad, "is 128", "=4096"},
		{"few pipes", "", set("fs.pipe-user-pages-soft", 1024), "pipes", Bad, "1024 pages", "engine: copy"},
		{"few pipes, and nobody wants one", "engine: copy\n", set("fs.pipe-user-pages-soft", 1024), "pipes", Good, "takes none", ""},
		{"few pipes, hard", "", set("fs.pipe-user-pages-hard", 64), "pipes", Bad, "pages-hard is 64 pages", ""},
		{"few pipes, to root", "", func(e *env, v map[string][]int) { e.root = true; v["fs.pipe-user-pages-soft"] = []int{8} }, "pipes", Warning, "user of its own", ""},
		{"another system", "", func(_ *env, v map[string][]int) { clear(v) }, "somaxconn", Skipped, "cannot be read", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			on, values := healthyHost()
			test.spoil(&on, values)
			found, err := examine(t.Context(), on, Config{Settings: settings(t, test.config)})
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range found {
				if f.Check == test.check && f.Level == test.level && strings.Contains(f.Text, test.text) && strings.Contains(f.Mend, test.mend) {
					return
				}
			}
			t.Errorf("not found: %+v", found)
		})
	}
}

// The limit that a finding names is enough: who follows it finds nothing any more.
func TestMendOfDescriptorsIsEnough(t *testing.T) {
	for _, sessions := range []int{10, 500, 20000, 60000, 1000000} {
		e := new(examination)
		e.Settings = settings(t, "limits: {sessions: "+strconv.Itoa(sessions)+"}\n")
		e.env, _ = healthyHost()
		e.descriptors = func() (int, error) { return 16, nil }
		e.descriptorLimit()
		limit := 0
		for field := range strings.FieldsFuncSeq(e.findings[0].Mend, func(r rune) bool { return r < '0' || r > '9' }) {
			limit, _ = strconv.Atoi(field)
			break
		}
		e.descriptors = func() (int, error) { return limit, nil }
		e.descriptorLimit()
		if e.findings[0].Level != Bad || e.findings[1].Level != Good {
			t.Errorf("%d sessions: %+v", sessions, e.findings)
		}
	}
}

func TestSkew(t *testing.T) {
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		there         time.Time
		before, after time.Duration
		want          time.Duration
	}{
		{at, 0, 0, 0},
		{at, 900 * time.Millisecond, 950 * time.Millisecond, 0}, // the same second
		{at, time.Second + 100*time.Millisecond, 2 * time.Second, -100 * time.Millisecond},
		{at, time.Minute, time.Minute, -59 * time.Second},
		{at, -time.Minute, -50 * time.Second, 50 * time.Second},
		{at, -time.Minute, time.Minute, 0}, // who knows
	} {
		if got := skew(test.there, at.Add(test.before), at.Add(test.after)); got != test.want {
			t.Errorf("before %v, after %v: %v, want %v", test.before, test.after, got, test.want)
		}
	}
}
