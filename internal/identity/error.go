package identity

import "net/http"

// Reason says why a request has no usable user id. Its String is a metric label.
type Reason uint8

const (
	Missing    Reason = iota // none of the key's sources is in the request
	Ambiguous                // one source, two different values
	Invalid                  // a value that is no user id, or a request that cannot be read strictly
	BadToken                 // a token that does not prove anything: forged, expired, for somebody else
	UnknownKey               // a token signed by a key that the issuer had not published when its keys were read last; see [Verifier.Refresh]
	NoKeys                   // the issuer's keys could not be read yet: nothing can be said of any token
)

func (r Reason) String() string {
	return [...]string{"missing", "ambiguous", "invalid", "bad_token", "unknown_key", "no_keys"}[r]
}

// Error is a request refused for its user id. Its text names the source and the problem and never repeats what the client sent.
type Error struct {
	Reason  Reason
	Source  string // as configured: `query parameter "user"`
	Problem string
	Token   bool // the user id was to come from a token
}

func (e *Error) Error() string {
	if e.Token {
		return "token: " + e.Source + ": " + e.Problem
	}
	return "user id: " + e.Source + ": " + e.Problem
}

// Status is the HTTP status to answer with.
func (e *Error) Status() int {
	switch {
	case e.Reason == NoKeys:
		return http.StatusServiceUnavailable
	case e.Token:
		return http.StatusUnauthorized
	}
	return http.StatusBadRequest
}

// Challenge is the WWW-Authenticate of a 401, RFC 6750 section 3.
func (e *Error) Challenge() string {
	if e.Reason == Missing {
		return `Bearer`
	}
	return `Bearer error="invalid_token", error_description="` + e.Problem + `"`
}

func (s *source) fail(reason Reason, problem string) *Error {
	return &Error{Reason: reason, Source: s.label, Problem: problem}
}
