package backend

import (
	"net/http"
	"time"
)

// tokenOver is the reason given to those whose token has ended before the session began.
const tokenOver = "token_expired"

// longestWait is how long one timer runs towards the end of a session: the clock may be set meanwhile, and a far end does not fit into one.
const longestWait = time.Hour

// endOf reads when a session is to end; zero: by itself.
func endOf(r *http.Request) (time.Time, *Refusal) {
	values := r.Header[ExpiresHeader]
	if len(values) == 0 {
		return time.Time{}, nil
	}
	end, err := time.Parse(time.RFC3339, values[0])
	switch {
	case err != nil || len(values) > 1:
		return time.Time{}, &Refusal{Status: http.StatusBadRequest, Text: ExpiresHeader + ": want one time, in the form of RFC 3339"}
	case !time.Now().Before(end):
		return time.Time{}, distrust(tokenOver, http.StatusUnauthorized, "the user's token has expired")
	}
	return end, nil
}

// endAt has the session closed with 1008 at end, by a timer of its loop. It runs there.
func (s *Session) endAt(end time.Time) {
	if end.IsZero() || s.ended {
		return
	}
	left := time.Until(end)
	if left <= 0 {
		s.beginClose(Expired, 0, "")
		return
	}
	s.expiry = s.loop.AfterFunc(min(left, longestWait), func() { s.endAt(end) })
}
