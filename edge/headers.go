package edge

import (
	"crypto/rand"
	"encoding/hex"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// hopByHop are the fields that belong to one connection, RFC 9110 section 7.6.1, and the older ones that proxies have always dropped;
// those that Connection lists belong to them too.
var hopByHop = []string{"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer",
	"Transfer-Encoding", "Upgrade", "Http2-Settings"}

func removeHopByHop(h http.Header) {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hopByHop {
		delete(h, name)
	}
}

// ourFields is for how many fields more than the request's a backend's header has room.
const ourFields = 8

// backendHeader returns the fields of r as its backend is to see them: without hop-by-hop fields and what only the edge may
// say, and with what the edge says.
func (e *Edge) backendHeader(r *http.Request, x *exchange) http.Header {
	h := make(http.Header, len(r.Header)+ourFields) // the values are r's: a field is replaced as a whole, if at all
	maps.Copy(h, r.Header)
	removeHopByHop(h)
	removeOurs(h, x.trusted)

	if x.user != "" {
		h["X-Selvedge-User"] = []string{percentEncode(x.user)}
	}
	if !x.expires.IsZero() {
		h["X-Selvedge-Expires"] = []string{x.expires.UTC().Format(time.RFC3339)}
	}
	h["X-Selvedge-Edge"] = []string{e.cfg.Name}
	h["X-Request-Id"] = []string{x.id}

	peer := x.head.Peer.Addr().Unmap().WithZone("")
	proto := "http"
	if r.TLS != nil {
		proto = "https"
	}
	if peer.IsValid() {
		h["X-Forwarded-For"] = []string{strings.Join(append(slices.Clip(h["X-Forwarded-For"]), peer.String()), ", ")}
	}
	h["Forwarded"] = []string{strings.Join(append(slices.Clip(h["Forwarded"]), forwardedElement(peer, r.Host, proto)), ", ")}
	if len(h["X-Forwarded-Proto"]) != 1 {
		h["X-Forwarded-Proto"] = []string{proto}
	}
	if len(h["X-Forwarded-Host"]) != 1 {
		h["X-Forwarded-Host"] = []string{r.Host}
	}
	x.route.request.request(h)
	return h
}

// passedOverMost bounds the ids in X-Selvedge-Passed-Over. The owner comes first, and it is what the header is for.
const passedOverMost = 16

// withPassedOver has h, which it changes, tell the member that others came before it and why it is asked: the edge tried them in vain, or
// avoids them. Where the user has no owner, nobody was passed over.
func withPassedOver(h http.Header, x *exchange, member candidate) http.Header {
	delete(h, "X-Selvedge-Passed-Over")
	if x.user == "" || len(member.passedOver) == 0 {
		return h
	}
	var ids []string
	for _, id := range member.passedOver[:min(len(member.passedOver), passedOverMost)] {
		ids = append(ids, percentEncode(id))
	}
	h["X-Selvedge-Passed-Over"] = []string{strings.Join(ids, ",")}
	return h
}

// removeOurs deletes what a backend takes for the edge's word. Backends that map fields to variables (CGI and all after it) cannot tell
// X_Selvedge_User from X-Selvedge-User, so that every spelling counts; a trusted proxy's word counts in the proper one.
func removeOurs(h http.Header, trusted bool) {
	for name := range h {
		if c := name[0] | 0x20; c != 'x' && c != 'f' {
			continue // most; none of ours begins with another letter, and a letter has one spelling
		}
		plain := plainName(name)
		ours := strings.HasPrefix(plain, "x-selvedge-")
		forwarding := plain == "forwarded" || plain == "x-request-id" || strings.HasPrefix(plain, "x-forwarded-")
		if ours || forwarding && !(trusted && strings.EqualFold(plain, name)) {
			delete(h, name)
		}
	}
}

// plainName folds the spellings of a field's name: lower case, and a hyphen for whatever is no letter or digit.
func plainName(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z' || '0' <= r && r <= '9':
			return r
		case 'A' <= r && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, name)
}

// percentEncode escapes all but the unreserved characters of RFC 3986 section 2.3.
func percentEncode(s string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(digits[c>>4])
		b.WriteByte(digits[c&15])
	}
	return b.String()
}

// forwardedElement is an element of Forwarded, RFC 7239.
func forwardedElement(peer netip.Addr, host, proto string) string {
	var b strings.Builder
	switch {
	case !peer.IsValid():
		b.WriteString("for=unknown")
	case peer.Is6():
		b.WriteString(`for="[` + peer.String() + `]"`)
	default:
		b.WriteString("for=" + peer.String())
	}
	if host != "" && !strings.ContainsAny(host, "\"\\") { // a Host holds neither; RFC 7230 wants anything else quoted
		b.WriteString(`;host="` + host + `"`)
	}
	b.WriteString(";proto=" + proto)
	return b.String()
}

// requestID is what a trusted proxy says, if it is sane: it ends in logs. Else it is new: 16 random bytes in hexadecimal.
func requestID(h http.Header, trusted bool) string {
	if ids := h["X-Request-Id"]; trusted && len(ids) == 1 && saneID(ids[0]) {
		return ids[0]
	}
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func saneID(id string) bool {
	if id == "" || len(id) > 128 {
		return false
	}
	for i := 0; i < len(id); i++ {
		c := id[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~:+/=@", c) >= 0) {
			return false
		}
	}
	return true
}

// hasToken tells whether a list field holds the token, in any case.
func hasToken(values []string, token string) bool {
	for _, line := range values {
		for t := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

// validFieldValue tells whether v can stand in a field without ending it: RFC 9110 section 5.5.
func validFieldValue(v string) bool {
	for i := 0; i < len(v); i++ {
		if c := v[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
