package bench

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"syscall"
)

// What a benchmark starts its own program as.
const (
	roleClients      = "clients"
	roleFarEnd       = "far-end"
	roleReverseProxy = "reverse-proxy"
	roleFanOut       = "fan-out"
)

// Role runs the part that args (of the program, without its name) ask for, to its end; is tells whether they ask for any. A program that
// calls a benchmark begins with it: the benchmark starts [Env.Self] for its clients and for parts of the set-up.
func Role(args []string) (is bool, err error) {
	if len(args) == 0 {
		return false, nil
	}
	switch args[0] {
	case roleClients:
		signal.Ignore(os.Interrupt, syscall.SIGTERM) // the parent decides, and ends the input
		return true, Clients(os.Stdin, os.Stdout)
	case roleFarEnd:
		return true, serveFarEnds(os.Stderr)
	case roleReverseProxy:
		return true, serveReverseProxy(args[1])
	case roleFanOut:
		return true, serveFanOut(args[1], args[2], args[3])
	}
	return false, nil
}

const reverseProxyUp = "reverse proxy is listening"

// serveReverseProxy is what a Go program gets from the standard library.
func serveReverseProxy(backend string) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: backend})
		r.SetXForwarded()
		r.Out.Header.Set("X-Selvedge-User", r.In.URL.Query().Get("user"))
	}}
	fmt.Fprintf(os.Stderr, `{"msg":%q,"addr":%q}`+"\n", reverseProxyUp, ln.Addr())
	return http.Serve(ln, proxy) //nolint:gosec // as short as people write it
}
