package edge

import (
	"net"
	"net/http"
	"strconv"
	"strings"
)

// redirects tells whether r came to a listener that sends clients to https, and not by TLS after all: a proxy in front may have ended it.
func (x *exchange) redirects(r *http.Request, c *clientConn) bool {
	if c == nil || !c.redirect {
		return false
	}
	proto := r.Header["X-Forwarded-Proto"]
	return !(x.trusted && len(proto) == 1 && strings.EqualFold(proto[0], "https"))
}

// redirect sends the client of r to the same place by https: 308 keeps the method and the body. What has no route has none by https either,
// so nobody is sent to a host that is not served here.
func (e *Edge) redirect(w http.ResponseWriter, r *http.Request, x *exchange) {
	code := http.StatusPermanentRedirect
	defer func() {
		if x.upgrade {
			e.metrics.upgraded(x.service(), code, x.started)
		} else {
			e.metrics.requests.WithLabelValues(x.service(), codeLabel(code)).Inc()
		}
	}()
	if no := x.resolve(r); no != nil && x.route == nil { // who the user is does not matter here
		code = no.status
		e.refuse(w, x, no)
		return
	}
	if r.Host == "" {
		code = refuseHost.status
		e.refuse(w, x, refuseHost)
		return
	}
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	h := w.Header()
	h.Set("Location", "https://"+secureHost(r.Host, portOf(local), e.securePort())+r.URL.RequestURI())
	h.Set("Content-Length", "0")
	if x.upgrade {
		h.Set("Connection", "close") // see refuse
	}
	w.WriteHeader(code)
}

// secureHost is host, a request's, with the port of https. A client that names the port we listen on reaches us without port mapping,
// and so finds the port that we listen on for TLS; any other is sent to 443.
func secureHost(host, ours, secure string) string {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name, port = strings.Trim(host, "[]"), "80"
	}
	if port != ours || secure == "" {
		secure = "443"
	}
	if secure != "443" {
		return net.JoinHostPort(name, secure)
	}
	if strings.Contains(name, ":") {
		return "[" + name + "]"
	}
	return name
}

// securePort is where the first listener with TLS listens; "": there is none.
func (e *Edge) securePort() string {
	for i, l := range e.cfg.Listen {
		if l.TLS != nil {
			return portOf(e.addrs[i])
		}
	}
	return ""
}

func portOf(addr net.Addr) string {
	if tcp, ok := addr.(*net.TCPAddr); ok {
		return strconv.Itoa(tcp.Port)
	}
	return ""
}
