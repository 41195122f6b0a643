package edge

import (
	"net/http"
	"time"

	"github.com/selvedge/selvedge/internal/identity"
)

// vouch has h, which it changes, carry the edge's signature of what h says of the user, for member alone: it knows by that that an edge
// sends this. It comes last, and anew for each member that is tried.
func (s *service) vouch(h http.Header, member string) {
	if s.secrets == nil {
		return
	}
	claims := identity.Claims{Service: s.name, Member: member, RequestID: h.Get("X-Request-Id"), User: h.Get("X-Selvedge-User"),
		Expires: h.Get("X-Selvedge-Expires")}
	h["X-Selvedge-Signature"] = []string{s.secrets.Sign(&claims, time.Now())}
}
