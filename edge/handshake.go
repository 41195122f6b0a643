package edge

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/selvedge/selvedge/internal/identity"
)

const (
	// backendHeadBytes bounds the head of a backend's answer, interim answers before it included.
	backendHeadBytes = 64 << 10
	// refusalBytes bounds the body of a backend's refusal of an upgrade that is passed on.
	refusalBytes = 1 << 20
)

// wantsWebSocket tells whether r asks for an upgrade to WebSocket. Any other upgrade is ignored, as RFC 9110 section 7.8 allows.
func wantsWebSocket(r *http.Request) bool {
	return hasToken(r.Header["Connection"], "upgrade") && hasToken(r.Header["Upgrade"], "websocket")
}

// checkUpgrade checks what an upgrade must look like, RFC 6455 section 4.1, and returns the Sec-WebSocket-Accept that its 101 must
// carry. A version other than 13, or none, is left to the backend to refuse: it knows which it has.
func checkUpgrade(r *http.Request) (accept string, no *refusal) {
	key := r.Header["Sec-Websocket-Key"]
	switch {
	case r.Method != http.MethodGet:
		return "", refuseRequest("an upgrade to WebSocket must be a GET")
	case !r.ProtoAtLeast(1, 1):
		return "", refuseRequest("an upgrade to WebSocket needs HTTP/1.1")
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		return "", refuseRequest("an upgrade to WebSocket must have no body")
	case len(r.Header["Sec-Websocket-Version"]) > 1:
		return "", refuseRequest("an upgrade to WebSocket must have one Sec-WebSocket-Version")
	case len(key) != 1 || !validKey(key[0]):
		return "", refuseRequest("an upgrade to WebSocket must have one Sec-WebSocket-Key, of 16 bytes in base64")
	}
	return acceptFor(key[0]), nil
}

func validKey(key string) bool {
	b, err := base64.StdEncoding.DecodeString(key)
	return err == nil && len(b) == 16
}

// acceptFor is the proof that a backend has read key, RFC 6455 section 4.2.2.
func acceptFor(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// upgradeHead appends the head of r to b as the backend is to read it.
func upgradeHead(b []byte, r *http.Request, h http.Header) []byte {
	for _, name := range []string{"Host", "Content-Length", "Expect"} { // said below, without a body, without waiting
		delete(h, name)
	}
	h["Connection"] = []string{"Upgrade"}
	h["Upgrade"] = []string{"websocket"}
	b = append(b, "GET "...)
	b = append(b, r.URL.RequestURI()...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, r.Host...)
	b = append(b, "\r\n"...)
	return appendFields(b, h)
}

// wireNames are the spellings of RFC 6455. Names have no case, but there are peers who do not know that, and net/http folds these.
var wireNames = map[string]string{
	"Sec-Websocket-Accept":     "Sec-WebSocket-Accept",
	"Sec-Websocket-Extensions": "Sec-WebSocket-Extensions",
	"Sec-Websocket-Key":        "Sec-WebSocket-Key",
	"Sec-Websocket-Protocol":   "Sec-WebSocket-Protocol",
	"Sec-Websocket-Version":    "Sec-WebSocket-Version",
}

// appendFields appends h in the order of names, and the empty line.
func appendFields(b []byte, h http.Header) []byte {
	var few [24]string // mostly enough, and not on the heap
	names := few[:0]
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		wire := name
		if w, ok := wireNames[name]; ok {
			wire = w
		}
		for _, v := range h[name] {
			b = append(b, wire...)
			b = append(b, ": "...)
			b = append(b, v...)
			b = append(b, "\r\n"...)
		}
	}
	return append(b, "\r\n"...)
}

// Why a backend has not answered.
var (
	errNoAnswer   = errors.New("the connection ended before a byte of an answer") // another member may be asked: nobody has seen the request
	errTooLate    = errors.New("no answer in time")
	errClientGone = errors.New("the client went away")
)

// backend is a connection to a member, up to the head of its answer.
type backend struct {
	conn  net.Conn
	input headReader
	br    *bufio.Reader // from readers
}

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 4096) }}

func newBackend(conn net.Conn) *backend {
	b := &backend{conn: conn, input: headReader{conn: conn, left: backendHeadBytes}, br: readers.Get().(*bufio.Reader)}
	b.br.Reset(&b.input)
	return b
}

// release returns the buffer; nothing may be read through b after it.
func (b *backend) release() {
	b.br.Reset(nil)
	readers.Put(b.br)
	b.br = nil
}

func (b *backend) close() {
	b.release()
	_ = b.conn.Close() // nothing is owed to it
}

// headReader bounds what a backend may send before its head is complete.
type headReader struct {
	conn net.Conn
	left int
	read bool // a byte has come
}

var errHeadTooBig = errors.New("the head of the answer is too big")

func (r *headReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, errHeadTooBig
	}
	n, err := r.conn.Read(p[:min(len(p), r.left)])
	r.left -= n
	r.read = r.read || n > 0
	return n, err
}

// ask sends what is unsent of the request's head and reads the head of the answer, by the time until, as long as ctx lasts.
func (b *backend) ask(ctx context.Context, r *http.Request, unsent []byte, until time.Time) (*http.Response, error) {
	if err := b.conn.SetDeadline(until); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = b.conn.SetDeadline(time.Unix(1, 0)) }) // wakes the calls below
	answer, err := b.exchange(r, unsent)
	if !stop() {
		return nil, errClientGone
	}
	var timed net.Error
	switch {
	case err == nil:
		return answer, nil
	case errors.As(err, &timed) && timed.Timeout():
		return nil, errTooLate
	case !b.input.read:
		return nil, fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	return nil, err
}

func (b *backend) exchange(r *http.Request, unsent []byte) (*http.Response, error) {
	// A backend may answer before it has read everything, and close: its answer counts more than the failure to write.
	var writeErr error
	if len(unsent) > 0 {
		_, writeErr = b.conn.Write(unsent)
	}
	for {
		answer, err := http.ReadResponse(b.br, r)
		if err != nil {
			return nil, errors.Join(err, writeErr)
		}
		if answer.StatusCode/100 == 1 && answer.StatusCode != http.StatusSwitchingProtocols {
			continue // an interim answer; backendHeadBytes bounds how many
		}
		return answer, nil
	}
}

// checkSwitch says what keeps a 101 from being the one that was asked for; "": nothing.
func checkSwitch(answer *http.Response, accept string) string {
	h := answer.Header
	switch got := h["Sec-Websocket-Accept"]; {
	case !answer.ProtoAtLeast(1, 1):
		return "the backend switched protocols in HTTP/1.0"
	case len(h["Upgrade"]) != 1 || !strings.EqualFold(h["Upgrade"][0], "websocket"):
		return "the backend switched to another protocol than WebSocket"
	case !hasToken(h["Connection"], "upgrade"):
		return "the backend's 101 lacks Connection: Upgrade"
	case len(got) != 1 || got[0] != accept:
		return "the backend's 101 has a wrong Sec-WebSocket-Accept"
	}
	return checkFields(h)
}

func checkFields(h http.Header) string {
	for _, values := range h {
		for _, v := range values {
			if !validFieldValue(v) {
				return "the backend's answer holds a field with control characters"
			}
		}
	}
	return ""
}

// switchHead appends the backend's 101 to b as the client is to read it.
func switchHead(b []byte, answer *http.Response, x *exchange) []byte {
	h := answer.Header
	removeHopByHop(h)
	x.route.response.response(h)
	if x.tokenProtocol && h["Sec-Websocket-Protocol"] == nil { // browsers want one of what they have offered, and the backend saw no token
		h["Sec-Websocket-Protocol"] = []string{identity.TokenProtocol}
	}
	delete(h, "Content-Length")
	h["Connection"] = []string{"Upgrade"}
	h["Upgrade"] = []string{"websocket"}
	return appendFields(append(b, "HTTP/1.1 101 Switching Protocols\r\n"...), h)
}

// passOn answers with a backend's refusal of an upgrade: status, fields but for the route's rules, and body as they came. The connection is
// closed after it.
func (b *backend) passOn(w http.ResponseWriter, answer *http.Response, rules *fieldRules, timeout time.Duration) {
	removeHopByHop(answer.Header)
	rules.response(answer.Header)
	h := w.Header()
	maps.Copy(h, answer.Header)
	delete(h, "Content-Length")
	if n := answer.ContentLength; n >= 0 && n <= refusalBytes {
		h["Content-Length"] = []string{fmt.Sprint(n)}
	}
	h["Connection"] = []string{"close"}
	w.WriteHeader(answer.StatusCode)
	b.input.left = refusalBytes + backendHeadBytes  // and the framing of chunks
	_ = b.conn.SetDeadline(time.Now().Add(timeout)) // fails only on a closed connection, as the read then does
	if _, err := io.CopyN(w, answer.Body, refusalBytes); !errors.Is(err, io.EOF) {
		panic(http.ErrAbortHandler) // too big, or broken off: the client must see that it is not whole
	}
}
