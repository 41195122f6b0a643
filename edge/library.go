package edge

import (
	"net/http"

	clientjs "github.com/selvedge/selvedge/edge/client"
)

// library serves selvedge.js to whoever may connect at all. No route has its path.
func (e *Edge) serveLibrary(w http.ResponseWriter, r *http.Request, x *exchange) {
	count := &statusWriter{ResponseWriter: w, code: statusClientGone}
	defer func() {
		e.metrics.requests.WithLabelValues("", codeLabel(count.code)).Inc()
		e.access.ended(x, count.code, 0, count.bytes)
	}()
	switch {
	case !x.live.gate.admits(x.head.Client):
		e.refuse(count, x, refuseDenied)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		count.Header().Set("Allow", "GET, HEAD")
		e.refuse(count, x, refuseMethod)
	default:
		clientjs.Serve(count, r)
	}
}
