package edge

import (
	"net/http"
	"strings"
	"time"

	clientjs "github.com/selvedge/selvedge/edge/client"
	"github.com/selvedge/selvedge/internal/identity"
)

// exchange is one request on its way through the edge: what has been found out about it so far. One goroutine, or loop, uses it at a time.
type exchange struct {
	id      string // X-Request-Id
	started time.Time
	live    *live // the configuration that this request is treated by from start to end
	trusted bool  // the peer is a trusted proxy
	upgrade bool
	mayWait bool // a goroutine of its own is on it, and no loop
	http1   bool // its answer can end the connection
	head    identity.RequestHead

	// Known once resolve has returned nil.
	route *route
	user  string // "": none

	expires       time.Time // of the user's token; zero: never
	challenge     string    // of a 401
	tokenProtocol bool      // the token came as a subprotocol

	// For the access log.
	logged   bool          // there will be a line
	refused  reason        // by the edge; "": it was not
	backend  string        // the member asked last; "": none
	asked    time.Time     // the first of them
	upstream time.Duration // from there to the head of the answer
}

// ServeHTTP decides what a request is: an upgrade to WebSocket or plain HTTP.
func (e *Edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, _ := r.Context().Value(clientConnKey{}).(*clientConn)
	if c != nil {
		c.answering.Store(true)
		if a := c.attempt.Swap(nil); a != nil { // the reactor has begun with it
			e.upgrade(w, r, a.x, a)
			return
		}
	}
	x := e.begin(r)
	x.mayWait = true
	switch {
	case x.redirects(r, c):
		e.redirect(w, r, x)
	case headBytes(r) > x.live.headerBytes:
		if x.upgrade {
			e.metrics.upgraded("", refuseHead.status, x.started)
		} else {
			e.metrics.requests.WithLabelValues("", codeLabel(refuseHead.status)).Inc()
		}
		x.refused = refuseHead.reason
		e.access.ended(x, refuseHead.status, 0, 0)
		e.refuse(w, x, refuseHead)
	case x.upgrade:
		e.upgrade(w, r, x, nil)
	case x.head.Path == resolvePath:
		e.dispatch(w, r, x)
	case x.head.Path == clientjs.Path:
		e.serveLibrary(w, r, x)
	default:
		e.plain(w, r, x)
	}
}

func (e *Edge) begin(r *http.Request) *exchange {
	x := &exchange{started: time.Now(), live: e.live.Load(), head: identity.FromHTTP(r), upgrade: wantsWebSocket(r),
		http1: r.ProtoMajor < 2}
	x.trusted = x.live.trusts(x.head.Client)
	if x.trusted {
		x.head.Client = x.live.client(x.head.Client, r.Header["X-Forwarded-For"])
	}
	x.id = requestID(r.Header, x.trusted)
	x.logged = e.access.takes()
	return x
}

// resolve finds the route and the user, if this client may ask at all.
func (x *exchange) resolve(r *http.Request) *refusal {
	if !x.live.gate.admits(x.head.Client) {
		return refuseDenied
	}
	if r.Method == http.MethodConnect || r.URL.Opaque != "" || r.URL.User != nil || r.URL.Scheme != "" && r.URL.Scheme != "http" && r.URL.Scheme != "https" {
		return refuseTarget
	}
	if !plainHost(r.Host) {
		return refuseHost // net/http lets more through than a name and a port; backends read such things in different ways
	}
	path, ok := cleanPath(x.head.Path)
	if !ok {
		return refusePath
	}
	if x.route = x.live.routes.find(x.head.Host, path); x.route == nil {
		return refuseNoRoute
	}
	return x.identify(r)
}

// plainHost tells whether a Host is a name or an address, with or without a port, as far as it matters to those who read it.
func plainHost(host string) bool {
	return validFieldValue(host) && !strings.ContainsAny(host, " \t\"\\/@,")
}

// asks notes that a member is asked, and hears that it has answered.
func (x *exchange) asks(member string, now time.Time) {
	if x.backend = member; x.asked.IsZero() {
		x.asked = now
	}
}

func (x *exchange) hears() { x.upstream = time.Since(x.asked) }

// service is the name of the service found, for metrics.
func (x *exchange) service() string {
	if x.route == nil {
		return ""
	}
	return x.route.service.name
}

// headBytes is the size of r's head written plainly: what surplus white space a client adds is not counted here, but by net/http, whose
// limit is 4 KiB higher.
func headBytes(r *http.Request) int {
	n := len(r.Method) + len(r.RequestURI) + len(" HTTP/1.1\r\n") + 1 + len("Host: \r\n") + len(r.Host) + len("\r\n")
	for name, values := range r.Header {
		for _, v := range values {
			n += len(name) + len(v) + len(": \r\n")
		}
	}
	return n
}
