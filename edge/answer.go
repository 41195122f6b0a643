package edge

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// reason says why the edge itself refused a request; its text is the label of selvedge_edge_refusals_total.
type reason string

const (
	badRequest     reason = "bad_request"
	badUser        reason = "bad_user"
	badHandshake   reason = "bad_handshake"    // of TLS
	badProxyHeader reason = "bad_proxy_header" // or a stranger on a listener with the PROXY protocol
	noToken        reason = "no_token"
	badToken       reason = "bad_token"
	unknownKey     reason = "unknown_key" // a token by a key that the issuer does not publish
	noKeys         reason = "no_keys"     // the issuer has not been reached yet
	noRoute        reason = "no_route"
	denied         reason = "denied"     // by address
	badOrigin      reason = "bad_origin" // of the page
	userFull       reason = "per_user"
	addressFull    reason = "per_ip"
	paced          reason = "upgrades_per_second"
	headTooBig     reason = "head_too_big"
	bodyTooBig     reason = "body_too_big"
	slowBody       reason = "slow_body"
	full           reason = "full"        // the session limit
	exhausted      reason = "exhausted"   // no descriptor or port left to reach a backend with
	draining       reason = "draining"    // the edge is on its way out
	noDispatch     reason = "no_dispatch" // the service, or the user's backend, cannot be connected to directly
	noMember       reason = "no_member"   // the ring is empty
	unreachable    reason = "unreachable" // no candidate took the connection and answered, or all that did take no session now
	badAnswer      reason = "bad_answer"  // a backend answered nonsense
	backendTooLate reason = "timeout"     // a backend did not answer in time
	clientGone     reason = "client_gone" // the client left before there was an answer
)

// reasons lists all, so that each is a metric from the start.
var reasons = []reason{badRequest, badUser, noToken, badToken, unknownKey, noKeys, badHandshake, badProxyHeader, noRoute, denied, badOrigin,
	userFull, addressFull, paced, headTooBig, bodyTooBig, slowBody, full, exhausted, draining, noDispatch, noMember, unreachable,
	badAnswer, backendTooLate, clientGone}

// statusClientGone is what metrics count for a client that left early, as nginx does; nobody is there to read it.
const statusClientGone = 499

// refusal is an answer of the edge's own.
type refusal struct {
	status int
	reason reason
	text   string // for the client: says what is wrong, holds nothing that anyone sent
	close  bool   // end the connection after the answer
}

func (no *refusal) Error() string { return no.text }

// Refusals that are the same for every request.
var (
	refuseNoRoute = &refusal{http.StatusNotFound, noRoute, "no route leads from this host and path to a service", false}
	refusePath    = &refusal{http.StatusBadRequest, badRequest,
		"the path cannot be read: bad percent-escape, NUL, or dot segments above the root", true}
	refuseTarget = &refusal{http.StatusBadRequest, badRequest, "the request's target is neither a path nor an http URL", true}
	refuseHost   = &refusal{http.StatusBadRequest, badRequest, "the Host is no host name, with or without a port", true}
	refuseHead   = &refusal{http.StatusRequestHeaderFieldsTooLarge, headTooBig, "the head of the request is too big", true}
	refuseSlow   = &refusal{http.StatusRequestTimeout, slowBody, "the body of the request comes too slowly", true}
	refuseBody   = &refusal{http.StatusRequestEntityTooLarge, bodyTooBig, "the body of the request is too big", true}

	refuseFull        = &refusal{http.StatusServiceUnavailable, full, "this edge holds as many sessions as it can; try again later", true}
	refuseExhausted   = &refusal{http.StatusServiceUnavailable, exhausted, "this edge has run out of connections; try again later", true}
	refuseDraining    = &refusal{http.StatusServiceUnavailable, draining, "this edge is going away; connect again", true}
	refuseNoMember    = &refusal{http.StatusServiceUnavailable, noMember, "no backend of this service is available; try again later", false}
	refuseUnreachable = &refusal{http.StatusServiceUnavailable, unreachable,
		"no backend of this service could take this; try again later", false}
	refuseTooLate = &refusal{http.StatusGatewayTimeout, backendTooLate, "the backend did not answer in time", false}
	refuseGone    = &refusal{statusClientGone, clientGone, "the client went away", true}
)

func refuseRequest(text string) *refusal {
	return &refusal{http.StatusBadRequest, badRequest, text, true}
}
func refuseAnswer(text string) *refusal {
	return &refusal{http.StatusBadGateway, badAnswer, text, false}
}

// refuse answers with no. It must not be called once the connection is hijacked.
func (e *Edge) refuse(w http.ResponseWriter, x *exchange, no *refusal) {
	e.metrics.refusals.WithLabelValues(string(no.reason)).Inc()
	x.refused = no.reason
	if no.status == statusClientGone {
		panic(http.ErrAbortHandler) // closes the connection without an answer
	}
	body := no.fill(w.Header(), x)
	w.WriteHeader(no.status)
	if x.head.Method != http.MethodHead {
		_, _ = w.Write(body) // the client's loss if it is gone
	}
}

// fill adds the fields of the answer to h, and returns its body.
func (no *refusal) fill(h http.Header, x *exchange) []byte {
	body := errorBody(no.text, x.id)
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	switch no.status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		h.Set("Retry-After", retryAfter())
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", x.challenge)
	}
	if (no.close || x.upgrade) && x.http1 { // in HTTP/2 it would end the other streams, too
		h.Set("Connection", "close") // what a client sent after a refused upgrade is no HTTP
	}
	return body
}

// answer is the whole answer as net/http would write it, which ends with its body.
func (no *refusal) answer(x *exchange) (whole, body []byte) {
	h := make(http.Header, 6)
	body = no.fill(h, x)
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	var out bytes.Buffer
	fmt.Fprintf(&out, "HTTP/1.1 %d %s\r\n", no.status, http.StatusText(no.status))
	_ = h.Write(&out) // to memory
	out.WriteString("\r\n")
	out.Write(body)
	return out.Bytes(), body
}

func errorBody(text, id string) []byte {
	body, err := json.Marshal(struct {
		Error     string `json:"error"`
		RequestID string `json:"request_id"`
	}{text, id})
	if err != nil {
		panic(err) // two strings always encode
	}
	return append(body, '\n')
}

// retryAfter is 1 to 5 seconds, so that those who are turned away together do not come back together.
func retryAfter() string { return strconv.Itoa(1 + rand.IntN(5)) }
