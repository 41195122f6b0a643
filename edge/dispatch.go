package edge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/identity"
)

// resolvePath is where a client asks which member to connect to. No route has it.
const resolvePath = "/.well-known/selvedge/resolve"

// Refusals of dispatch alone.
var (
	refuseMethod = &refusal{http.StatusMethodNotAllowed, badRequest, "want a GET", false}
	refuseWanted = &refusal{http.StatusBadRequest, badRequest,
		"path: want the path that is to be connected to, once, such as ?path=/ws", false}
	refuseUserless = &refusal{http.StatusBadRequest, badUser, "this route knows no user; connect through this edge", false}
	refuseDispatch = &refusal{http.StatusNotFound, noDispatch,
		"this service's users connect through this edge; services.NAME.edge_secret_file is not set", false}
	refuseNoURL = &refusal{http.StatusServiceUnavailable, noDispatch,
		"this user's backend has no public_url; connect through this edge", false}
)

// resolved is the answer to a client that asks where to connect.
type resolved struct {
	URL     string    `json:"url"` // for one connection, within its time; used as it is
	Backend string    `json:"backend"`
	Ring    string    `json:"ring"` // the digest
	Expires time.Time `json:"expires"`
}

// dispatch names the member that a client is to connect to by itself, as the edge would have chosen it for an upgrade to the wanted path
// with the rest of the query, and gives it a ticket. The edge holds nothing of the session then.
func (e *Edge) dispatch(w http.ResponseWriter, r *http.Request, x *exchange) {
	code, size := statusClientGone, int64(0)
	defer func() {
		e.metrics.requests.WithLabelValues(x.service(), codeLabel(code)).Inc()
		e.access.ended(x, code, 0, size)
	}()
	if x.letRead(w.Header(), r) && r.Method == http.MethodOptions {
		code = http.StatusNoContent
		w.WriteHeader(code)
		return
	}
	answer, no := e.dispatched(r, x)
	if no != nil {
		if code = no.status; no == refuseMethod {
			w.Header().Set("Allow", http.MethodGet)
		}
		e.refuse(w, x, no)
		return
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false) // an & stays one, for people
	if err := encoder.Encode(answer); err != nil {
		panic(err) // texts and a time always encode
	}
	code = http.StatusOK
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	size, _ = text.WriteTo(w) // the client's loss if it is gone
}

func (e *Edge) dispatched(r *http.Request, x *exchange) (*resolved, *refusal) {
	if r.Method != http.MethodGet {
		return nil, refuseMethod
	}
	if !x.live.gate.allowsOrigin(r.Header["Origin"]) {
		return nil, refuseOrigin
	}
	path, query, ok := wanted(r.URL.RawQuery)
	if !ok {
		return nil, refuseWanted
	}
	asked := x.head
	x.head.Path, x.head.RawQuery, r.URL.RawQuery = path, query, query
	no := x.resolve(r)
	x.head, query = asked, r.URL.RawQuery // without the token, if one was there
	switch {
	case no != nil:
		return nil, no
	case x.user == "":
		return nil, refuseUserless
	case x.route.service.secrets == nil:
		return nil, refuseDispatch
	}
	wait, ok := e.pace.enter() // it lets somebody in, if not here
	if !ok {
		return nil, refusePaced
	}
	if !pause(r.Context(), wait) {
		return nil, refuseGone
	}
	svc := x.route.service
	snap := svc.view.Snapshot()
	if snap.Ring.Len() == 0 {
		return nil, refuseNoMember
	}
	member, owner, no := svc.nearest(r.Context(), snap, x.user)
	switch {
	case no != nil:
		return nil, no
	case !strings.HasPrefix(member.PublicURL, "ws://") && !strings.HasPrefix(member.PublicURL, "wss://"):
		return nil, refuseNoURL // the next one would only send the user on
	}
	x.backend = member.ID

	target := path
	if query != "" {
		target += "?" + query
	}
	ticket := identity.Ticket{User: x.user, Backend: member.ID, Target: target, Origin: x.reachedAt(r), SessionEnd: x.expires,
		Expires: x.started.Add(identity.TicketLife).Truncate(time.Millisecond)}
	if len(ticket.Origin) > mostOrigin {
		return nil, refuseHost
	}
	if member.ID != owner {
		ticket.PassedOver = owner
	}
	mark := "?"
	if query != "" {
		mark = "&"
	}
	return &resolved{
		URL:     strings.TrimSuffix(member.PublicURL, "/") + target + mark + identity.TicketParameter + "=" + svc.secrets.Mint(svc.name, &ticket),
		Backend: member.ID, Ring: snap.Ring.Digest(), Expires: ticket.Expires.UTC(),
	}, nil
}

// letRead lets a page of another origin read the answer where the configuration lists that origin: then it may open sessions, with the user's
// cookies or token. Where all may, since none is listed, they may not read what another origin's user is given.
func (x *exchange) letRead(h http.Header, r *http.Request) bool {
	h.Set("Vary", "Origin") // for caches that do not believe no-store
	from := r.Header["Origin"]
	if len(from) != 1 || len(x.live.gate.origins) == 0 || !x.live.gate.allowsOrigin(from) {
		return false
	}
	h["Access-Control-Allow-Origin"] = from
	h.Set("Access-Control-Allow-Credentials", "true")
	if r.Method == http.MethodOptions {
		h.Set("Access-Control-Allow-Methods", http.MethodGet)
		h.Set("Access-Control-Allow-Headers", "Authorization")
		h.Set("Access-Control-Max-Age", "600") // seconds
	}
	return true
}

// mostOrigin is more than a name of 253 bytes takes.
const mostOrigin = 300

// wanted reads the path that is to be connected to, as a URL has it, out of the query, and returns the query without it. A path that is not
// given is /.
func wanted(raw string) (path, query string, ok bool) {
	var rest []string
	for part := range strings.SplitSeq(raw, "&") {
		rawName, rawValue, _ := strings.Cut(part, "=")
		if name, err := url.QueryUnescape(rawName); err != nil || name != "path" {
			if part != "" {
				rest = append(rest, part)
			}
			continue
		}
		value, err := url.QueryUnescape(rawValue)
		if err != nil || path != "" || !strings.HasPrefix(value, "/") || strings.ContainsAny(value, "?#") {
			return "", "", false
		}
		u, err := url.ParseRequestURI(value)
		if err != nil {
			return "", "", false
		}
		path = u.EscapedPath() // as the member reads it, too
	}
	if path == "" {
		path = "/"
	}
	query = strings.Join(rest, "&")
	if _, _, ticket := identity.CutTicket(query); ticket {
		return "", "", false // a client that asks again with the whole URL that it had; there would be two
	}
	return path, query, true
}

// reachedAt is how the client reached this edge, for asking again.
func (x *exchange) reachedAt(r *http.Request) string {
	scheme, host := "http", r.Host
	if r.TLS != nil {
		scheme = "https"
	}
	if x.trusted {
		if proto := r.Header["X-Forwarded-Proto"]; len(proto) == 1 && (proto[0] == "http" || proto[0] == "https") {
			scheme = proto[0]
		}
		if hosts := r.Header["X-Forwarded-Host"]; len(hosts) == 1 && plainHost(hosts[0]) {
			host = hosts[0]
		}
	}
	return scheme + "://" + host
}

// nearest is the first member on the user's way that can be reached now, and the user's owner, which comes first. An edge that dispatches
// does not learn from its own sessions who has died, so it knocks.
func (s *service) nearest(ctx context.Context, snap *discovery.Snapshot, user string) (member discovery.Member, owner string, no *refusal) {
	left := s.cfg.attempts()
	for id := range snap.Ring.Successors(user) {
		if owner == "" {
			owner = id
		}
		m, ok := snap.Member(id)
		if !ok || s.outliers.avoids(m) {
			continue
		}
		if left--; left < 0 {
			break
		}
		err := s.knock(ctx, m)
		if err == nil {
			return m, owner, nil
		}
		if ctx.Err() != nil {
			return m, owner, refuseGone
		}
		if dial := (*dialError)(nil); errors.As(err, &dial) && dial.ours() {
			return m, owner, refuseExhausted
		}
	}
	return discovery.Member{}, owner, refuseUnreachable
}

// knock tells whether m takes connections now: nil, or a *dialError. What was so a moment ago does not count: all clients of a member that has
// died ask in that moment.
func (s *service) knock(ctx context.Context, m discovery.Member) error {
	began := time.Now()
	conn, err := s.sources.dial(ctx, m.Addr, began.Add(s.cfg.ConnectTimeout))
	if err != nil {
		if ctx.Err() != nil {
			return &dialError{err}
		}
		dial := s.unreachable(m.Addr, err)
		if !dial.ours() {
			s.outliers.failed(m, began, err)
		}
		return dial
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // a reset: a port that waits for a minute after each knock would soon be none
	}
	_ = conn.Close()
	return nil
}
