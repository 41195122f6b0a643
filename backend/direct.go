package backend

import (
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// resolvePath is where an edge says which member a user is to connect to.
const resolvePath = "/.well-known/selvedge/resolve"

// redeem takes a direct client's ticket, once. What the client says of itself in the edge's words goes, and the ticket's word comes in its
// place; nobody after this sees the ticket.
func (b *Backend) redeem(r *http.Request, query, text string) (again string, refusal *Refusal) {
	target := r.URL.EscapedPath()
	if query != "" {
		target += "?" + query
	}
	ticket, err := b.trust.guard.Ticket(text, target, time.Now())
	if ticket.Origin != "" {
		again = ticket.Origin + resolvePath + "?path=" + url.QueryEscape(r.URL.EscapedPath())
		if query != "" {
			again += "&" + query
		}
	}
	if err == nil {
		for _, claimed := range r.Header[UserHeader] {
			if user, bad := url.PathUnescape(claimed); bad != nil || user != ticket.User {
				err = errOtherUser
			}
		}
	}
	if err != nil {
		return again, refuseTicket(err, again)
	}

	maps.DeleteFunc(r.Header, func(name string, _ []string) bool {
		plain := strings.ToLower(strings.ReplaceAll(name, "_", "-"))
		return isOurs(name) || plain == "forwarded" || strings.HasPrefix(plain, "x-forwarded-")
	})
	r.URL.RawQuery = query
	r.RequestURI = target
	r.Header.Set(UserHeader, percentEncode(ticket.User))
	if ticket.PassedOver != "" {
		r.Header.Set(PassedOverHeader, percentEncode(ticket.PassedOver))
	}
	if !ticket.SessionEnd.IsZero() {
		r.Header.Set(ExpiresHeader, ticket.SessionEnd.UTC().Format(time.RFC3339))
	}
	return again, nil
}

// percentEncode escapes all but the unreserved characters of RFC 3986, as edges do.
func percentEncode(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

func refuseTicket(err error, again string) *Refusal {
	why := refusedFor(err)
	refusal := distrust("ticket_"+why.word, why.status, "the ticket: "+err.Error())
	refusal.again = again
	return refusal
}

// misdirected has a direct client, which is one that knows where to have another ticket, go on by asking for it where an edge would turn to
// the user's next member by itself. refusal is what an edge would be told.
func misdirected(refusal *Refusal, again string) *Refusal {
	switch refusal.why {
	case "draining", "joining", "stopped":
		if again != "" {
			return refuseTicket(errLeaving, again)
		}
	}
	return refusal
}
