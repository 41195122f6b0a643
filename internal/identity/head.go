package identity

import (
	"net/http"
	"net/netip"
)

// RequestHead is what routing, identity and admission look at. It is neutral on purpose: net/http fills it, and so can any other
// parser of request heads. It is read only while the request is being decided on; nothing keeps it.
type RequestHead struct {
	Method   string
	Host     string // as the client named it, with the port if it gave one
	Path     string // still percent-encoded, as it came
	RawQuery string // without the question mark, as it came

	// Header returns the values of a field, one per line of the head; name is in canonical form (X-User-Id).
	Header func(name string) []string

	Peer   netip.AddrPort // the other end of the connection
	Client netip.Addr     // who asks: Peer's address, or what trusted proxies in between say
}

// FromHTTP returns the head of r. Client is the peer's address; whoever trusts proxies in front sets it anew.
func FromHTTP(r *http.Request) RequestHead {
	peer, _ := netip.ParseAddrPort(r.RemoteAddr) // invalid on a unix socket: there `ip` finds nothing
	return RequestHead{
		Method:   r.Method,
		Host:     r.Host,
		Path:     r.URL.EscapedPath(),
		RawQuery: r.URL.RawQuery,
		Header:   func(name string) []string { return r.Header[name] },
		Peer:     peer,
		Client:   peer.Addr().Unmap().WithZone(""),
	}
}
