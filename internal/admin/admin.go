package admin

import (
	"fmt"
	"net/http"
	"net/http/pprof"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Config says what a listener shows.
type Config struct {
	Token func() string       // asked for each request; nil or "": no token is asked for
	Ready func() error        // what keeps the process from taking work; nil: nothing
	Show  prometheus.Gatherer // served at /metrics
	Page  Source              // what the page at / shows; nil: there is none
	RPC   http.Handler        // served below every path that starts with /selvedge. (the push service); nil: nothing is
}

// NewRegistry returns a registry that holds the metrics of the process and the Go runtime; its owner adds its own.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Handler returns the listener's handler.
func Handler(c Config) http.Handler {
	private := http.NewServeMux()
	private.Handle("GET /metrics", promhttp.HandlerFor(c.Show, promhttp.HandlerOpts{}))
	private.HandleFunc("/debug/pprof/", pprof.Index)
	private.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	private.HandleFunc("/debug/pprof/profile", pprof.Profile)
	private.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	private.HandleFunc("/debug/pprof/trace", pprof.Trace)
	public := http.NewServeMux()
	if c.Page != nil {
		page := newPage(c.Page)
		page.files(public)
		page.data(private)
	}
	var inside http.Handler = private
	if c.RPC != nil {
		// A web page that the operator has open elsewhere must not push to users: browsers say where a request comes from.
		rpc := http.NewCrossOriginProtection().Handler(c.RPC)
		inside = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/selvedge.") {
				rpc.ServeHTTP(w, r)
				return
			}
			private.ServeHTTP(w, r)
		})
	}

	public.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	public.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if c.Ready != nil {
			if err := c.Ready(); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
		fmt.Fprintln(w, "ready")
	})
	public.Handle("/", RequireTokenOf(c.Token, againstRebinding(c.Token, inside)))
	return public
}
