package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/selvedge/selvedge/internal/discovery"
)

// plain passes a request that is no upgrade to the member that the user's sessions are on.
func (e *Edge) plain(w http.ResponseWriter, r *http.Request, x *exchange) {
	count := &statusWriter{ResponseWriter: w, code: statusClientGone}
	f := &forwarder{edge: e, x: x}
	whole := false
	defer func() {
		e.metrics.requests.WithLabelValues(x.service(), codeLabel(count.code)).Inc()
		if !whole && x.refused == "" { // broken off within the answer's body
			if x.refused = badAnswer; count.broken || r.Context().Err() != nil {
				x.refused = clientGone
			}
		}
		e.access.ended(x, count.code, f.received.Load(), count.bytes)
	}()
	if no := x.resolve(r); no != nil {
		e.refuse(count, x, no)
		return
	}
	if r.Body != nil && r.Body != http.NoBody {
		r = r.WithContext(r.Context()) // a copy: net/http looks at the body of its own to see what became of 100-continue
		f.body = e.paceBody(w, r)
	}
	if limit := x.route.bodyBytes; limit > 0 {
		if r.ContentLength > limit {
			e.refuse(count, x, refuseBody)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, limit)
	}
	snap := x.route.service.view.Snapshot()
	if snap.Ring.Len() == 0 {
		e.refuse(count, x, refuseNoMember)
		return
	}
	// Not one field of an upgrade goes on, so that no answer can turn this connection into a raw pipe.
	r.Header.Del("Upgrade")
	f.snap, f.transport = snap, e.transport(x.route)
	proxy := httputil.ReverseProxy{
		Rewrite:        f.rewrite,
		Transport:      f,
		ModifyResponse: f.answered,
		BufferPool:     copyBuffers{},
		ErrorLog:       e.httpLog,
		ErrorHandler:   f.failed,
	}
	count.interim = r.ProtoAtLeast(1, 1) && r.Header["Expect"] == nil
	_ = http.NewResponseController(w).EnableFullDuplex() // where there is another mode
	count.unread = func() bool { return x.http1 && r.ContentLength != 0 && !f.bodyEnded.Load() }
	defer f.settle(count, r)
	proxy.ServeHTTP(count, r)
	whole = true
}

// settle ends the connection of a request whose body the backend has not read to its end. Nothing may be read as a request after such a body, and
// net/http, left to itself, would wait for the rest of it.
func (f *forwarder) settle(w *statusWriter, r *http.Request) {
	c, _ := r.Context().Value(clientConnKey{}).(*clientConn)
	if c == nil || !w.unread() {
		return
	}
	_ = c.SetReadDeadline(time.Unix(1, 0)) // a read that is under way for the backend ends, and so does the next line
	_ = r.Body.Close()
	c.linger.Store(int64(f.edge.restTimeout))
}

// forwarder brings one plain request to a member, and to the next where nothing has been sent yet. ReverseProxy does the streaming, in
// both directions, flushing at once what has no known length (server-sent events).
type forwarder struct {
	edge      *Edge
	x         *exchange
	snap      *discovery.Snapshot
	transport *http.Transport

	body      *clientBody  // nil: none
	received  atomic.Int64 // bytes of the request's body
	bodyEnded atomic.Bool
}

func (f *forwarder) rewrite(p *httputil.ProxyRequest) {
	te := hasToken(p.In.Header["Te"], "trailers")
	p.Out.Header = f.edge.backendHeader(p.In, f.x)
	if te {
		p.Out.Header["Te"] = []string{"trailers"}
	}
	p.Out.Trailer = nil // fields that come after the body escape removeOurs
	p.Out.URL.Scheme = "http"
	p.Out.URL.RawQuery = p.In.URL.RawQuery // as it came; ReverseProxy drops what it cannot parse
}

// RoundTrip asks for an answer, and asks again when the user is moved while the request waits for one.
func (f *forwarder) RoundTrip(r *http.Request) (*http.Response, error) {
	for {
		answer, err := f.ask(r)
		if !errors.Is(err, errMoved) {
			return answer, err
		}
		f.snap = f.x.route.service.view.Snapshot()
	}
}

// ask asks the candidates in turn. The error is errMoved where the one that was asked is not the user's owner any more.
func (f *forwarder) ask(r *http.Request) (*http.Response, error) {
	var err error
	svc := f.x.route.service
	for member := range svc.walk(f.snap, f.x.user).rest() {
		began := time.Now()
		f.x.asks(member.ID, began)
		ctx := r.Context()
		if svc.cfg.ProxyProtocol != "" {
			ctx = context.WithValue(ctx, endsKey{}, endsOf(ctx, f.x))
		}
		settle := func() bool { return true }
		if withoutEffect(r) {
			ctx, settle = svc.mover.wait(ctx, f.x.user, member)
		}
		try := r.Clone(ctx)
		if try.URL.Host = member.Addr; try.Host == "" { // of HTTP/1.0: net/http would name the member's address
			try.Host = "localhost"
		}
		svc.vouch(try.Header, member.ID)
		body := &onceBody{r: r.Body, of: f}
		if r.Body != nil {
			try.Body = body
		}
		var answer *http.Response
		answer, err = f.transport.RoundTrip(try)
		if !settle() && r.Context().Err() == nil {
			if err == nil {
				_ = answer.Body.Close() // it came in the same moment; the owner's is the one that counts
			}
			return nil, errMoved
		}
		if err == nil {
			f.x.hears()
			svc.outliers.answered(member.Member, began)
			if answer.StatusCode == http.StatusSwitchingProtocols {
				_ = answer.Body.Close()
				return nil, refuseAnswer("the backend switched protocols unasked")
			}
			return answer, nil
		}
		if dial := (*dialError)(nil); errors.As(err, &dial) && !dial.ours() && r.Context().Err() == nil {
			svc.outliers.failed(member.Member, began, err)
		}
		if r.Context().Err() != nil || body.touched() || !f.mayRepeat(r, err) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: %w", errNoAnswer, err)
}

// mayRepeat tells whether another member may be asked after err: nothing was sent, or a request without effect broke off before an answer.
func (f *forwarder) mayRepeat(r *http.Request, err error) bool {
	if dial := (*dialError)(nil); errors.As(err, &dial) {
		return !dial.ours()
	}
	var timed net.Error
	if errors.As(err, &timed) && timed.Timeout() {
		return false
	}
	return withoutEffect(r) && endedEarly(err)
}

// withoutEffect tells whether a request to a member can be broken off, or sent twice.
func withoutEffect(r *http.Request) bool {
	safe := r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions
	return safe && r.Body == nil
}

// answered has the answer's fields follow the route's rules.
func (f *forwarder) answered(answer *http.Response) error {
	if f.body != nil {
		f.body.free()
	}
	f.x.route.response.response(answer.Header)
	return nil
}

// failed answers where no backend did.
func (f *forwarder) failed(w http.ResponseWriter, r *http.Request, err error) {
	var no *refusal
	if f.body != nil {
		no = f.body.refusal()
		f.body.free()
	}
	var tooBig *http.MaxBytesError
	var dial *dialError
	var timed net.Error
	switch {
	case errors.As(err, &tooBig):
		no = refuseBody
	case no != nil, errors.As(err, &no):
	case r.Context().Err() != nil:
		no = refuseGone
	case errors.As(err, &dial) && dial.ours():
		no = refuseExhausted
	case errors.As(err, &dial), errors.Is(err, errNoAnswer):
		no = refuseUnreachable
	case errors.As(err, &timed) && timed.Timeout():
		no = refuseTooLate
	case endedEarly(err):
		no = refuseAnswer("the backend ended the connection before it answered")
	default:
		no = refuseAnswer("the backend's answer is no HTTP")
	}
	if no.reason == badAnswer {
		f.x.route.service.log.Warn("a member's answer cannot be used", zap.String("request_id", f.x.id), zap.Error(err))
	}
	f.edge.refuse(w, f.x, no)
}

// onceBody is a request's body for one attempt: closing it leaves the client's stream open for the next.
type onceBody struct {
	mu     sync.Mutex
	r      io.ReadCloser
	of     *forwarder
	read   bool
	closed bool
}

func (b *onceBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return 0, http.ErrBodyReadAfterClose
	}
	b.read = true
	b.mu.Unlock()
	n, err := b.r.Read(p)
	b.of.received.Add(int64(n))
	if errors.Is(err, io.EOF) {
		b.of.bodyEnded.Store(true)
	}
	return n, err
}

func (b *onceBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}

func (b *onceBody) touched() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.read
}

// transports are the keep-alive connections to backends, one pool for each service and timeout. A service that is treated in another way
// than before has new ones.
type transports struct {
	mu   sync.Mutex
	pool map[transportKey]*http.Transport
}

type transportKey struct {
	service *service
	timeout time.Duration
}

func (e *Edge) transport(r *route) *http.Transport {
	key := transportKey{r.service, r.timeout}
	e.transports.mu.Lock()
	defer e.transports.mu.Unlock()
	if t, ok := e.transports.pool[key]; ok {
		return t
	}
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			from, _ := ctx.Value(endsKey{}).(ends)
			if host, _, err := net.SplitHostPort(addr); err == nil && discovery.IsSocket(host) {
				addr = host // net/http has added a port
			}
			return r.service.dial(ctx, addr, from)
		},
		DisableKeepAlives:      r.service.cfg.ProxyProtocol != "", // a PROXY header is about one client
		ResponseHeaderTimeout:  r.timeout,
		ExpectContinueTimeout:  time.Second,
		IdleConnTimeout:        4 * time.Second, // below what servers keep, Node for 5 s: a POST that meets their close cannot be repeated
		MaxIdleConnsPerHost:    64,
		MaxResponseHeaderBytes: backendHeadBytes,
		DisableCompression:     true, // the body passes as it is
	}
	e.transports.pool[key] = t
	return t
}

// keep drops the pools of services that are not l's; requests under way keep their connections.
func (t *transports) keep(l *live) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, one := range t.pool {
		if l.services[key.service.name] != key.service {
			one.CloseIdleConnections()
			delete(t.pool, key)
		}
	}
}

func (t *transports) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, one := range t.pool {
		one.CloseIdleConnections()
	}
}

// copyBuffers lends 32 KiB buffers to ReverseProxy.
type copyBuffers struct{}

var copyPool = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

func (copyBuffers) Get() []byte  { return *copyPool.Get().(*[]byte) }
func (copyBuffers) Put(b []byte) { copyPool.Put(&b) }

// statusWriter remembers the status of an answer and counts the bytes of its body.
type statusWriter struct {
	http.ResponseWriter
	code    int
	bytes   int64
	broken  bool        // the client takes no more
	interim bool        // it may have interim answers
	unread  func() bool // tells whether the connection must end, since there is more of the request's body; nil: no
}

func (w *statusWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	w.broken = w.broken || err != nil
	return n, err
}

// WriteHeader passes interim answers on, but for 100, which net/http says as soon as the body is read for the backend, and not beside that one: both
// would be written at the same time, to clients that can do nothing with early hints for what they send.
func (w *statusWriter) WriteHeader(code int) {
	if code < http.StatusOK {
		if w.interim && code != http.StatusContinue {
			w.ResponseWriter.WriteHeader(code)
		}
		return
	}
	w.code = code
	h := w.Header()
	if h["Content-Type"] == nil {
		h["Content-Type"] = nil // what the backend has not said is not guessed
	}
	if w.unread != nil && w.unread() {
		h["Connection"] = []string{"close"}
	}
	w.ResponseWriter.WriteHeader(code)
}

// Unwrap lets ReverseProxy flush.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
