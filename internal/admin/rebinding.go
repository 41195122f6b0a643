package admin

import (
	"net"
	"net/http"
	"strings"
)

// againstRebinding turns requests away that a browser makes for a web page of somebody else, whose name that somebody has pointed at
// this host: to the browser they are of one origin with that page. Where a token is asked for, that page does not have it. Where none
// is, the listener is on loopback, and who means it says so by address or as localhost. What is no browser sends no Origin and may
// call the listener by any name, but for what the page alone reads.
func againstRebinding(token func() string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asks := token != nil && token() != ""
		browser := r.Header.Get("Origin") != "" || strings.HasPrefix(r.URL.Path, "/page/")
		if !asks && r.TLS == nil && browser && !isLocalName(r.Host) {
			http.Error(w, "without a token this listener is for 127.0.0.1 and localhost only; open it by one of these, or set admin.token_file", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isLocalName tells whether a Host field names an address, or this host by a name that no DNS server decides on.
func isLocalName(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || net.ParseIP(host) != nil
}
