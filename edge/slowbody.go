package edge

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// What a request's body may take: bodyGrace, and a second more for each bodyPace bytes that have come, until the backend begins to answer. They
// are Apache's defaults (mod_reqtimeout). Without them a client that sends a byte now and then would keep a connection to a backend for ever.
const (
	bodyGrace = 20 * time.Second
	bodyPace  = 500 // bytes a second
)

// clientBody is a request's body that must come in time. One goroutine reads it, others ask what became of it.
type clientBody struct {
	io.ReadCloser
	deadline func(time.Time) error // of the connection's reads

	mu    sync.Mutex
	until time.Time
	off   bool  // no deadline any more
	err   error // what ended it, but for its end
}

// paceBody has r's body come in time.
func (e *Edge) paceBody(w http.ResponseWriter, r *http.Request) *clientBody {
	b := &clientBody{ReadCloser: r.Body, deadline: http.NewResponseController(w).SetReadDeadline, until: time.Now().Add(e.bodyGrace)}
	r.Body = b
	return b
}

func (b *clientBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	if !b.off {
		_ = b.deadline(b.until) // fails on a connection that has ended, as the read does
	}
	b.mu.Unlock()
	n, err := b.ReadCloser.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.until = b.until.Add(time.Duration(n) * time.Second / bodyPace)
	if err == nil {
		return n, nil
	}
	if !errors.Is(err, io.EOF) {
		b.err = err
	}
	b.freeLocked() // what net/http reads after the body is the next request
	return n, err
}

// free lets the body take its time: the backend answers already.
func (b *clientBody) free() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.freeLocked()
}

func (b *clientBody) freeLocked() {
	if !b.off {
		b.off = true
		_ = b.deadline(time.Time{})
	}
}

// refusal says what is wrong with the body; nil: nothing.
func (b *clientBody) refusal() *refusal {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.err == nil:
		return nil
	case errors.Is(b.err, os.ErrDeadlineExceeded):
		return refuseSlow
	case endedEarly(b.err):
		return refuseGone
	}
	return refuseRequest("the body of the request is malformed")
}
