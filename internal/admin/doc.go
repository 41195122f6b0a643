// Package admin is the operator's listener of an edge, a backend or a bridge: health, readiness, metrics, profiles, and whatever pages its
// owner adds.
//
//	/              the page (page.js and its like beside it); DESIGN.md says what it shows and how it is told
//	/page/         what the page shows
//	/healthz       200 while the process runs
//	/readyz        200 while Ready returns nil, else 503 with the reason
//	/metrics       Prometheus
//	/debug/pprof/  Go's profiles
//
// With a token everything but /healthz, /readyz and the page's files, which hold no data, asks for it, as a bearer token. A listener that strangers could reach is refused
// without one: see [CheckExposure].
package admin
