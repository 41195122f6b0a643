package identity

import "net/http"

// Reason says why a request has no usable user id. Its String is a metric label.
type Reason uint8

const (
	Missing   Reason = iota // none of the key's sources is in the request
	Ambiguous               // one source, two different values
	Invalid                 // a value that is no user id, or a request that cannot be read strictly
)

func (r Reason) String() string { return [...]string{"missing", "ambiguous", "invalid"}[r] }

// Error is a request refused for its user id. Its text names the source and the problem and never repeats what the client sent.
type Error struct {
	Reason  Reason
	Source  string // as configured: `query parameter "user"`
	Problem string
}

func (e *Error) Error() string { return "user id: " + e.Source + ": " + e.Problem }

// Status is the HTTP status to answer with.
func (e *Error) Status() int { return http.StatusBadRequest }

func (s *source) fail(reason Reason, problem string) *Error {
	return &Error{Reason: reason, Source: s.label, Problem: problem}
}
