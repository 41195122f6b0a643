package identity

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParseKeyAccepts(t *testing.T) {
	for _, expr := range []string{
		"query:user", "header:X-User", "header:x-user", "cookie:uid", "path:1", "path:12", "jwt:sub", "ip", "none",
		"query:user,cookie:uid", "query:user, cookie:uid", "jwt:sub,jwt:email", "query:user,none", "cookie:uid,ip", "query:a:b",
	} {
		k, err := ParseKey(expr)
		if err != nil {
			t.Errorf("%q: %v", expr, err)
		}
		if k.String() != expr {
			t.Errorf("%q: String is %q", expr, k.String())
		}
		if want := strings.HasPrefix(expr, "jwt"); k.NeedsAuth() != want {
			t.Errorf("%q: NeedsAuth is %v", expr, !want)
		}
	}
}

func TestParseKeyRefuses(t *testing.T) {
	for expr, says := range map[string]string{
		"":                       "empty",
		" ":                      "empty",
		"user":                   "query:NAME",
		"query":                  "name is missing",
		"query:":                 "name is missing",
		"query:user,":            "query:NAME",
		"header:X User":          "header field",
		"cookie:a=b":             "name of a cookie",
		"path:0":                 "from 1",
		"path:01":                "from 1",
		"path:-1":                "from 1",
		"path:x":                 "from 1",
		"ip:4":                   "stands alone",
		"none:":                  "stands alone",
		"none,query:user":        "put it last",
		"ip,none":                "put it last",
		"jwt:sub,query:user":     "unverified",
		"query:user,jwt:sub":     "unverified",
		"jwt:sub,none":           "unverified",
		"jwt:sub,ip":             "unverified",
		"query:a,cookie:b,jwt:c": "unverified",
	} {
		if _, err := ParseKey(expr); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: error %v, want one that says %q", expr, err, says)
		}
	}
}

func request(t testing.TB, target string, header ...string) RequestHead {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "http://edge.test/", nil)
	r.RemoteAddr = "192.0.2.7:1234"
	u, err := url.ParseRequestURI(target)
	if err != nil {
		t.Fatal(err)
	}
	r.URL = u
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return FromHTTP(r)
}

func TestUserID(t *testing.T) {
	long := strings.Repeat("x", 256)
	for _, c := range []struct {
		key, target string
		header      []string
		user        string
		reason      Reason // where user is "-"
	}{
		{key: "query:user", target: "/ws?user=alice", user: "alice"},
		{key: "query:user", target: "/ws?a=b&user=alice&c", user: "alice"},
		{key: "query:user", target: "/ws?user=a%20b", user: "a b"},
		{key: "query:user", target: "/ws?user=a+b", user: "a b"},
		{key: "query:user", target: "/ws?user=a%2Bb", user: "a+b"},
		{key: "query:user", target: "/ws?us%65r=alice", user: "alice"},
		{key: "query:user", target: "/ws?user=a=b", user: "a=b"},
		{key: "query:user", target: "/ws?user=j%C3%B6rg", user: "jörg"},
		{key: "query:user", target: "/ws?User=alice", user: "-", reason: Missing},
		{key: "query:user", target: "/ws", user: "-", reason: Missing},
		{key: "query:user", target: "/ws?user=", user: "-", reason: Invalid},
		{key: "query:user", target: "/ws?user", user: "-", reason: Invalid},
		{key: "query:user", target: "/ws?user=a&user=a", user: "a"},
		{key: "query:user", target: "/ws?user=a&user=b", user: "-", reason: Ambiguous},
		{key: "query:user", target: "/ws?user=a&us%65r=b", user: "-", reason: Ambiguous},
		{key: "query:user", target: "/ws?user=a&user=", user: "-", reason: Ambiguous},
		{key: "query:user", target: "/ws?user=a;user=b", user: "-", reason: Invalid},
		{key: "query:user", target: "/ws?user=%zz", user: "-", reason: Invalid},
		{key: "query:user", target: "/ws?user=a&x=%4", user: "-", reason: Invalid},
		{key: "query:user", target: "/ws?user=" + long, user: long},
		{key: "query:user", target: "/ws?user=" + long + "x", user: "-", reason: Invalid},
		{key: "query:user", target: "/ws?user=a%00b", user: "-", reason: Invalid},
		{key: "query:user", target: "/ws?user=a%0Ab", user: "-", reason: Invalid},
		{key: "query:user", target: "/ws?user=a%7F", user: "-", reason: Invalid},
		{key: "query:user", target: "/ws?user=a%C2%85", user: "-", reason: Invalid},   // NEL, a control of U+0080 and up
		{key: "query:user", target: "/ws?user=%C0%AF", user: "-", reason: Invalid},    // overlong
		{key: "query:user", target: "/ws?user=%ED%A0%80", user: "-", reason: Invalid}, // surrogate
		{key: "query:user", target: "/ws?user=%2561lice", user: "%61lice"},            // decoded once
		{key: "query:user,cookie:uid", target: "/ws?user=a", header: []string{"Cookie", "uid=b"}, user: "a"},
		{key: "query:user,cookie:uid", target: "/ws", header: []string{"Cookie", "uid=b"}, user: "b"},
		{key: "query:user,cookie:uid", target: "/ws?user=", header: []string{"Cookie", "uid=b"}, user: "-", reason: Invalid},
		{key: "query:user,none", target: "/ws", user: ""},
		{key: "query:user,none", target: "/ws?user=%00", user: "-", reason: Invalid},
		{key: "none", target: "/ws?user=%zz", user: ""},
		{key: "header:x-user", target: "/", header: []string{"X-User", "alice"}, user: "alice"},
		{key: "header:x-user", target: "/", header: []string{"X-User", "alice", "X-User", "alice"}, user: "alice"},
		{key: "header:x-user", target: "/", header: []string{"X-User", "alice", "X-User", "bob"}, user: "-", reason: Ambiguous},
		{key: "header:x-user", target: "/", header: []string{"X_User", "alice"}, user: "-", reason: Missing},
		{key: "header:host", target: "/", user: "edge.test"},
		{key: "cookie:uid", target: "/", header: []string{"Cookie", "a=1; uid=bob; c=2"}, user: "bob"},
		{key: "cookie:uid", target: "/", header: []string{"Cookie", `uid="bob"`}, user: "bob"},
		{key: "cookie:uid", target: "/", header: []string{"Cookie", "uid=b%20b"}, user: "b%20b"},
		{key: "cookie:uid", target: "/", header: []string{"Cookie", "xuid=bob; UID=x"}, user: "-", reason: Missing},
		{key: "cookie:uid", target: "/", header: []string{"Cookie", "uid=a", "Cookie", "uid=b"}, user: "-", reason: Ambiguous},
		{key: "cookie:uid", target: "/", header: []string{"Cookie", "uid=a; uid=b"}, user: "-", reason: Ambiguous},
		{key: "cookie:uid", target: "/", header: []string{"Cookie", "uid=a; uid=a"}, user: "a"},
		{key: "path:2", target: "/room/alice", user: "alice"},
		{key: "path:2", target: "/room/alice/x", user: "alice"},
		{key: "path:2", target: "/room/a%2Fb/x", user: "a/b"},
		{key: "path:2", target: "/room/a+b", user: "a+b"},
		{key: "path:2", target: "/room/", user: "-", reason: Missing},
		{key: "path:2", target: "/room", user: "-", reason: Missing},
		{key: "path:2", target: "/room//alice", user: "-", reason: Missing},
		{key: "path:2", target: "/./room/alice", user: "-", reason: Invalid},
		{key: "path:2", target: "/room/%2e%2E", user: "-", reason: Invalid},
		{key: "path:1", target: "/room/..", user: "room"},
		{key: "ip", target: "/", user: "192.0.2.7"},
	} {
		k, err := ParseKey(c.key)
		if err != nil {
			t.Fatal(err)
		}
		head := request(t, c.target, c.header...)
		user, err := k.UserID(&head)
		if c.user != "-" {
			if err != nil || user != c.user {
				t.Errorf("%s of %s %q: %q, %v; want %q", c.key, c.target, c.header, user, err, c.user)
			}
			continue
		}
		var refused *Error
		if !errors.As(err, &refused) || refused.Reason != c.reason || refused.Status() != http.StatusBadRequest || user != "" {
			t.Errorf("%s of %s %q: %q, %v; want it refused as %v", c.key, c.target, c.header, user, err, c.reason)
		}
	}
}

func TestErrorsDoNotEcho(t *testing.T) {
	const planted = "s3cr3t"
	for _, target := range []string{"/s3cr3t/%2e?user=s3cr3t%00", "/%2e/s3cr3t?user=s3cr3t&user=s3cr3t2", "/%2e?user=s3cr3t;s3cr3t", "/?s3cr3t=%zz"} {
		for _, expr := range []string{"query:user", "path:2", "header:X-User", "cookie:uid"} {
			k, err := ParseKey(expr)
			if err != nil {
				t.Fatal(err)
			}
			head := request(t, target, "X-User", planted, "X-User", planted+"2", "Cookie", "uid="+planted+"\x01")
			if _, err := k.UserID(&head); err != nil && strings.Contains(err.Error(), planted) {
				t.Errorf("%s of %s: the error repeats what the client sent: %v", expr, target, err)
			}
		}
	}
}

func TestMissingNamesAllSources(t *testing.T) {
	k, err := ParseKey("query:user,cookie:uid")
	if err != nil {
		t.Fatal(err)
	}
	head := request(t, "/ws")
	_, err = k.UserID(&head)
	if want := `user id: query parameter "user" or cookie "uid": not given`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestIPIsTheClientNotThePeer(t *testing.T) {
	k, err := ParseKey("ip")
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{"::ffff:192.0.2.9": "192.0.2.9", "2001:db8::1": "2001:db8::1", "fe80::1%eth0": "fe80::1"} {
		head := request(t, "/")
		head.Client = netip.MustParseAddr(in)
		if user, err := k.UserID(&head); err != nil || user != want {
			t.Errorf("%s: %q, %v; want %q", in, user, err, want)
		}
	}
	head := request(t, "/")
	head.Client = netip.Addr{}
	var refused *Error
	if _, err := k.UserID(&head); !errors.As(err, &refused) || refused.Reason != Missing {
		t.Errorf("no address: %v, want it missing", err)
	}
}

func TestQueryCostsNothing(t *testing.T) {
	k, err := ParseKey("query:user")
	if err != nil {
		t.Fatal(err)
	}
	head := request(t, "/ws?room=7&user=alice")
	if n := testing.AllocsPerRun(100, func() {
		if _, err := k.UserID(&head); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

// FuzzQuery holds readQuery against net/url: the same queries are refused, and the values found are the same.
func FuzzQuery(f *testing.F) {
	for _, q := range []string{"user=a", "user=a&user=b", "user=%zz", "user=a;b", "us%65r=a+b", "&&user", "=", "user=%", "a%3Db=c&user=%C0%AF"} {
		f.Add(q)
	}
	s := source{kind: kindQuery, name: "user", label: "query"}
	f.Fuzz(func(t *testing.T, raw string) {
		if strings.Count(raw, "&") > 5000 {
			return // net/url has a limit of its own; a head of 16 KiB never gets there
		}
		want, wantErr := url.ParseQuery(raw)
		value, present, err := s.readQuery(raw)
		var refused *Error
		switch {
		case errors.As(err, &refused) && refused.Reason == Ambiguous:
			distinct := map[string]bool{}
			for _, v := range want["user"] {
				distinct[v] = true
			}
			if len(distinct) < 2 {
				t.Fatalf("%q: ambiguous, but net/url has %q", raw, want["user"])
			}
		case (err != nil) != (wantErr != nil):
			t.Fatalf("%q: %v; net/url: %v", raw, err, wantErr)
		case err == nil && (present != want.Has("user") || value != want.Get("user")):
			t.Fatalf("%q: %q, %v; net/url: %q", raw, value, present, want["user"])
		}
	})
}

// FuzzPath holds readPath against net/url's unescaping of each segment.
func FuzzPath(f *testing.F) {
	for _, p := range []string{"/room/alice", "/room/a%2Fb", "//x", "/%2e/x", "", "/", "x/y", "/a/%", "/a/b/c"} {
		f.Add(p)
	}
	s := source{kind: kindPath, segment: 2, label: "path"}
	f.Fuzz(func(t *testing.T, path string) {
		value, present, err := s.readPath(path)
		if err != nil {
			return
		}
		segments := strings.Split(path, "/")
		var want string
		if strings.HasPrefix(path, "/") && len(segments) > 2 {
			var werr error
			if want, werr = url.PathUnescape(segments[2]); werr != nil {
				t.Fatalf("%q: accepted, net/url: %v", path, werr)
			}
		}
		if value != want || present != (want != "") {
			t.Fatalf("%q: %q, %v; want %q", path, value, present, want)
		}
	})
}

// FuzzKey: no expression and no request makes it panic, and what is accepted is a user id.
func FuzzKey(f *testing.F) {
	f.Add("query:user,cookie:uid", "/a/b?user=x", "uid=1")
	f.Add("path:2,none", "/a/%00", "")
	f.Add("header:Cookie", "/", `uid="x`)
	f.Fuzz(func(t *testing.T, expr, target, cookie string) {
		k, err := ParseKey(expr)
		if err != nil || k.NeedsAuth() {
			return
		}
		path, query, _ := strings.Cut(target, "?")
		head := RequestHead{Path: path, RawQuery: query, Header: func(string) []string { return []string{cookie} }}
		user, err := k.UserID(&head)
		if err != nil || user == "" {
			return
		}
		if len(user) > MaxUserID || !utf8.ValidString(user) || strings.ContainsFunc(user, unicode.IsControl) {
			t.Fatalf("%q accepted as a user id", user)
		}
	})
}
