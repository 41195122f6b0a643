package edge

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/selvedge/selvedge/internal/identity"
)

// route is a checked Route.
type route struct {
	host    string // lower case; of a wildcard the suffix with its dot
	rank    int    // of the host: exact, wildcard, any
	path    string
	key     identity.Key
	service *service

	timeout   time.Duration
	bodyBytes int64
	// userInPath says that a part of the path can be the user's id: it is not logged.
	userInPath bool
	request    fieldRules
	response   fieldRules
}

const (
	rankExact = iota
	rankWildcard
	rankAny
)

// routes is a routing table: the first that matches is the one. A table is small (tens of routes), so that a walk is as
// fast as anything cleverer.
type routes []*route

// newRoutes sorts and compiles what [Config.check] has let through. The services are those that the routes name.
func newRoutes(from []Route, services map[string]*service) (routes, error) {
	table := make(routes, 0, len(from))
	for _, c := range from {
		key, err := identity.ParseKey(c.Key)
		if err != nil {
			return nil, err
		}
		r := &route{host: strings.ToLower(c.Host), path: c.Path, key: key, service: services[c.Service],
			timeout: c.Timeout, bodyBytes: c.BodyBytes, request: newFieldRules(c.RequestFields), response: newFieldRules(c.ResponseFields),
			userInPath: strings.Contains(key.String(), "path:")}
		switch {
		case r.host == "":
			r.rank = rankAny
		case strings.HasPrefix(r.host, "*."):
			r.rank, r.host = rankWildcard, r.host[1:]
		}
		table = append(table, r)
	}
	order := func(a, b *route) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(len(b.host), len(a.host)), strings.Compare(a.host, b.host),
			cmp.Compare(len(b.path), len(a.path)), strings.Compare(a.path, b.path))
	}
	slices.SortFunc(table, order)
	for i := 1; i < len(table); i++ {
		if order(table[i-1], table[i]) == 0 {
			return nil, fmt.Errorf("two routes have host %q and path %q; keep one", table[i].host, table[i].path)
		}
	}
	return table, nil
}

// find returns the route of a host, as the client named it, and of a path as [cleanPath] returns it; nil: none.
func (table routes) find(host, path string) *route {
	host = hostName(host)
	for _, r := range table {
		if r.matches(host) && strings.HasPrefix(path, r.path) {
			return r
		}
	}
	return nil
}

func (r *route) matches(host string) bool {
	switch r.rank {
	case rankExact:
		return host == r.host
	case rankWildcard:
		return len(host) > len(r.host) && strings.HasSuffix(host, r.host)
	}
	return true
}

// hostName cuts the port and the final dot from a Host field and lowers its case.
func hostName(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// cleanPath returns what routes are compared with: the path percent-decoded once, slashes merged, dot segments resolved. It refuses
// what has no such form: a path that does not start with a slash, that climbs above the root, that has a bad escape or a NUL.
func cleanPath(escaped string) (string, bool) {
	if !strings.HasPrefix(escaped, "/") {
		return "", false
	}
	if !strings.Contains(escaped, "%") && !strings.Contains(escaped, "//") && !strings.Contains(escaped, "/.") &&
		!strings.Contains(escaped, "\x00") {
		return escaped, true
	}
	path, ok := identity.UnescapePath(escaped)
	if !ok || strings.Contains(path, "\x00") {
		return "", false
	}
	var out []string
	segments := strings.Split(path, "/")[1:]
	for i, segment := range segments {
		last := i == len(segments)-1
		switch segment {
		case "":
			if last {
				out = append(out, "")
			}
		case ".":
			if last {
				out = append(out, "")
			}
		case "..":
			if len(out) == 0 {
				return "", false
			}
			out = out[:len(out)-1]
			if last {
				out = append(out, "")
			}
		default:
			out = append(out, segment)
		}
	}
	return "/" + strings.Join(out, "/"), true
}
