package edge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// listen opens a listener, or takes the one that was handed in.
func listen(ctx context.Context, addr string, inherited net.Listener) (net.Listener, error) {
	if inherited != nil {
		return inherited, nil
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%w: stop what listens there, or choose another port", err)
	}
	return ln, err
}

// acceptReasons are the labels of accept errors.
var acceptReasons = []string{"descriptors", "memory", "other"}

func acceptReason(err error) string {
	switch {
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "descriptors"
	case errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.ENOMEM):
		return "memory"
	}
	return "other"
}

// listener accepts for net/http where the reactor cannot, which takes TCP sockets of the kernel only. net/http would give up at an
// error that it does not take for temporary. Here every error but the listener's own end is counted, logged and retried; clients wait
// in the kernel's queue meanwhile. (Connections aborted before they are accepted are skipped by package net.)
type listener struct {
	net.Listener
	edge   *Edge
	index  int // in Config.Listen
	once   sync.Once
	closed chan struct{}
}

func newListener(e *Edge, ln net.Listener, index int) *listener {
	return &listener{Listener: ln, edge: e, index: index, closed: make(chan struct{})}
}

// The pause after a failure to accept: doubled by each that follows.
const leastPause, mostPause = 5 * time.Millisecond, time.Second

// cannotAccept counts and logs a failure to take a connection.
func (e *Edge) cannotAccept(err error, pause time.Duration) {
	reason := acceptReason(err)
	e.metrics.acceptErrors.WithLabelValues(reason).Inc()
	e.log.Warn("cannot accept a connection; trying again", zap.String("reason", reason), zap.Duration("in", pause), zap.Error(err))
}

func (l *listener) Accept() (net.Conn, error) {
	conn, err := l.accept()
	if err != nil {
		return nil, err
	}
	return l.client(conn), nil
}

// client is conn as long as it speaks HTTP.
func (l *listener) client(conn net.Conn) *clientConn {
	return &clientConn{Conn: conn, refusals: l.edge.metrics.refusals, patience: l.edge.sendTimeout, redirect: l.edge.cfg.Listen[l.index].RedirectHTTPS}
}

// accept takes the next connection. Its error is net.ErrClosed.
func (l *listener) accept() (net.Conn, error) {
	for pause := leastPause; ; pause = min(2*pause, mostPause) {
		conn, err := l.Listener.Accept()
		if err == nil {
			return conn, nil
		}
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		l.edge.cannotAccept(err, pause)
		select {
		case <-time.After(pause):
		case <-l.closed:
			return nil, net.ErrClosed
		}
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// clientConn is a client's connection as long as it speaks HTTP. It turns the answers that net/http gives by itself, before any handler
// runs (400, 431, 501, 505), into the edge's form: net/http has no hook for them.
type clientConn struct {
	net.Conn
	refusals  *prometheus.CounterVec
	patience  time.Duration // for the client to take what is written, a few KiB at a time
	redirect  bool          // the listener sends its clients to https
	answering atomic.Bool   // a handler runs: what is written is its answer
	linger    atomic.Int64  // nanoseconds for which Close reads on, 0: none

	// Of a connection that the reactor has handed over after it took the request's head off it.
	head    []byte                  // what is left of it to be read again; only Read uses it
	attempt atomic.Pointer[attempt] // for the first handler
	abandon func(*attempt)          // for an attempt that no handler has taken
}

// Read reads the head again that the reactor has read already, then from the connection.
func (c *clientConn) Read(p []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(p, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

func (c *clientConn) Close() error {
	if a := c.attempt.Swap(nil); a != nil {
		c.abandon(a)
	}
	if d := time.Duration(c.linger.Swap(0)); d > 0 { // RFC 9112 section 9.6: closed with bytes unread it would be reset, and the answer lost
		_ = c.CloseWrite()
		_ = c.SetReadDeadline(time.Now().Add(d))
		_, _ = io.Copy(io.Discard, c.Conn)
	}
	return c.Conn.Close()
}

type clientConnKey struct{}

// connContext lets a handler find the connection that it answers on.
func connContext(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, clientConnKey{}, clientOf(c))
}

// clientOf finds the clientConn in what a listener of ours has accepted; nil: HTTP/2, which has none.
func clientOf(c net.Conn) *clientConn {
	switch c := c.(type) {
	case *clientConn:
		return c
	case secureConn:
		return c.clientConn
	}
	return nil
}

// connState notes that a handler's answer has been written.
func connState(c net.Conn, state http.ConnState) {
	if cc := clientOf(c); cc != nil && state == http.StateIdle {
		cc.answering.Store(false)
	}
}

var refusedByNetHTTP = []byte("HTTP/1.1 ")

// sendTimeout is how long a client may take nothing of an answer, as nginx's send_timeout: one that asks for much and reads nothing would
// keep a connection to a backend for ever. Sessions have none: what their clients do not read is the backend's to judge.
const sendTimeout = time.Minute

func (c *clientConn) Write(p []byte) (int, error) {
	_ = c.SetWriteDeadline(time.Now().Add(c.patience)) // fails on a connection that has ended, as the write does
	if c.answering.Load() || !bytes.HasPrefix(p, refusedByNetHTTP) || len(p) < len(refusedByNetHTTP)+3 {
		return c.Conn.Write(p)
	}
	code, err := strconv.Atoi(string(p[len(refusedByNetHTTP):][:3]))
	if err != nil {
		return c.Conn.Write(p)
	}
	no := refuseRequest("the request is malformed")
	if code == http.StatusRequestHeaderFieldsTooLarge {
		no = refuseHead
	}
	c.refusals.WithLabelValues(string(no.reason)).Inc()
	if err := c.answerItself(code, no); err != nil {
		return 0, err
	}
	return len(p), nil
}

// answerItself answers where no handler runs, and none will.
func (c *clientConn) answerItself(code int, no *refusal) error {
	body := errorBody(no.text, requestID(nil, false))
	answer := fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nCache-Control: no-store\r\n"+
		"Connection: close\r\n\r\n%s", code, http.StatusText(code), len(body), body)
	_, err := c.Conn.Write(answer)
	return err
}

// CloseWrite lets net/http end an answer with a FIN, so that a reset for unread bytes does not destroy it.
func (c *clientConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
