package edge

import (
	"net/url"
	"path"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func table(t interface{ Fatal(...any) }, list ...Route) routes {
	services := map[string]*service{}
	for i := range list {
		services[list[i].Service] = &service{pool: &pool{name: list[i].Service}}
		if list[i].Path == "" {
			list[i].Path = "/"
		}
		list[i].Key = "none"
	}
	r, err := newRoutes(list, services)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRoutes(t *testing.T) {
	r := table(t,
		Route{Host: "chat.example.com", Path: "/ws", Service: "exact"},
		Route{Host: "*.example.com", Path: "/ws", Service: "wild"},
		Route{Host: "*.eu.example.com", Path: "/", Service: "eu"},
		Route{Path: "/game/", Service: "game"},
		Route{Path: "/game/new/", Service: "newgame"},
		Route{Path: "/admin", Service: "admin"},
		Route{Path: "/", Service: "rest"},
	)
	for _, c := range []struct{ host, path, want string }{
		{"chat.example.com", "/ws", "exact"},
		{"CHAT.Example.COM:8080", "/ws/x", "exact"},
		{"chat.example.com.", "/ws", "exact"},
		{"chat.example.com", "/other", "rest"}, // the host's own routes do not match: on to the less specific ones
		{"a.example.com", "/ws", "wild"},
		{"a.b.example.com", "/wsx", "wild"},
		{"example.com", "/ws", "rest"},
		{"xexample.com", "/ws", "rest"},
		{".example.com", "/ws", "rest"},
		{"a.eu.example.com", "/ws", "eu"},
		{"other", "/game/x", "game"},
		{"other", "/game/new/x", "newgame"},
		{"other", "/game", "rest"},
		{"other", "/Game/", "rest"},
		{"[::1]:80", "/", "rest"},
		{"", "/", "rest"},
		{"other", "/%67ame/x", "game"},
		{"other", "//game///x", "game"},
		{"other", "/x/../admin", "admin"},
		{"other", "/x/..%2fadmin", "admin"},
		{"other", "/x/%2e%2e/admin", "admin"},
		{"other", "/./admin", "admin"},
		{"other", "/game/..", "rest"},
		{"other", "/%2561dmin", "rest"}, // decoded once
	} {
		clean, ok := cleanPath(c.path)
		if !ok {
			t.Errorf("%s refused", c.path)
			continue
		}
		got := r.find(c.host, clean)
		if got == nil || got.service.name != c.want {
			t.Errorf("%s%s: %v, want %s", c.host, c.path, got, c.want)
		}
	}
	only := table(t, Route{Host: "a", Path: "/x", Service: "s"})
	if only.find("a", "/y") != nil || only.find("b", "/x") != nil {
		t.Error("a route where none is")
	}
	for _, p := range []string{"", "x", "*", "/..", "/a/../..", "/%", "/%zz", "/%00", "/a\x00"} {
		if clean, ok := cleanPath(p); ok {
			t.Errorf("%q became %q, want it refused", p, clean)
		}
	}
}

func TestTwoRoutesAlike(t *testing.T) {
	for _, second := range []Route{{Path: "/x"}, {Path: "/x", Service: "other"}} {
		_, err := New(Config{Membership: members(), Routes: []Route{{Path: "/x"}, second}})
		if err == nil || !strings.Contains(err.Error(), "keep one") {
			t.Errorf("%v", err)
		}
	}
}

// The table, against reading all routes for the best.
func TestRoutesAgainstNaive(t *testing.T) {
	hosts := []string{"", "a.x", "*.x", "*.a.x", "b.a.x"}
	paths := []string{"/", "/a", "/a/", "/a/b", "/b"}
	rapid.Check(t, func(t *rapid.T) {
		seen := map[string]bool{}
		var list []Route
		for range rapid.IntRange(1, 12).Draw(t, "routes") {
			r := Route{Host: rapid.SampledFrom(hosts).Draw(t, "host"), Path: rapid.SampledFrom(paths).Draw(t, "path")}
			r.Service = r.Host + " " + r.Path
			if !seen[r.Service] {
				seen[r.Service] = true
				list = append(list, r)
			}
		}
		host := rapid.SampledFrom([]string{"a.x", "x", "b.a.x", "c.b.a.x", "z"}).Draw(t, "asked host")
		target := rapid.StringMatching(`/[ab/]{0,4}`).Draw(t, "asked path")
		clean, ok := cleanPath(target)
		if !ok {
			t.Fatalf("%q refused", target)
		}
		best, bestScore := "", -1
		for _, r := range list {
			score := -1
			switch {
			case r.Host == host:
				score = 1_000_000
			case strings.HasPrefix(r.Host, "*.") && strings.HasSuffix(host, r.Host[1:]) && len(host) >= len(r.Host):
				score = 1000 * len(r.Host)
			case r.Host == "":
				score = 0
			}
			if score >= 0 && strings.HasPrefix(clean, r.Path) && score+len(r.Path) > bestScore {
				best, bestScore = r.Service, score+len(r.Path)
			}
		}
		got := table(t, list...).find(host, clean)
		if (got == nil) != (bestScore < 0) || got != nil && got.service.name != best {
			t.Fatalf("%s%s: %+v, want %q of %v", host, target, got, best, list)
		}
	})
}

// FuzzCleanPath holds cleanPath against net/url and package path.
func FuzzCleanPath(f *testing.F) {
	for _, p := range []string{"/", "/a/../b", "/a//b/", "/%2e%2e/x", "/a/./", "/a%2f..%2fb", "/..", "/a/..", "//"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		got, ok := cleanPath(p)
		if !ok {
			return
		}
		decoded, err := url.PathUnescape(p)
		if err != nil {
			t.Fatalf("%q accepted: %v", p, err)
		}
		want := path.Clean(decoded)
		if strings.TrimSuffix(got, "/") != strings.TrimSuffix(want, "/") {
			t.Fatalf("%q became %q, want %q", p, got, want)
		}
		if strings.Contains(got, "//") || strings.Contains(got+"/", "/../") || strings.Contains(got+"/", "/./") {
			t.Fatalf("%q became %q", p, got)
		}
	})
}
