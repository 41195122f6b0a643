package edge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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

// listener accepts for net/http, which would give up at an error that it does not take for temporary. Here every error but the
// listener's own end is counted, logged and retried; clients wait in the kernel's queue meanwhile. (Connections aborted before
// they are accepted are skipped by package net.)
type listener struct {
	net.Listener
	metrics *metrics
	log     *zap.Logger
	once    sync.Once
	closed  chan struct{}
}

func newListener(ln net.Listener, m *metrics, log *zap.Logger) *listener {
	return &listener{Listener: ln, metrics: m, log: log, closed: make(chan struct{})}
}

func (l *listener) Accept() (net.Conn, error) {
	const least, most = 5 * time.Millisecond, time.Second
	for pause := least; ; pause = min(2*pause, most) {
		conn, err := l.Listener.Accept()
		if err == nil {
			return &clientConn{Conn: conn, refusals: l.metrics.refusals}, nil
		}
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		reason := acceptReason(err)
		l.metrics.acceptErrors.WithLabelValues(reason).Inc()
		l.log.Warn("cannot accept a connection; trying again", zap.String("reason", reason), zap.Duration("in", pause), zap.Error(err))
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
	answering atomic.Bool // a handler runs: what is written is its answer
}

type clientConnKey struct{}

// connContext lets a handler find the connection that it answers on.
func connContext(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, clientConnKey{}, c)
}

// connState notes that a handler's answer has been written.
func connState(c net.Conn, state http.ConnState) {
	if cc, ok := c.(*clientConn); ok && state == http.StateIdle {
		cc.answering.Store(false)
	}
}

var refusedByNetHTTP = []byte("HTTP/1.1 ")

func (c *clientConn) Write(p []byte) (int, error) {
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
	body := errorBody(no.text, requestID(nil, false))
	answer := fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nCache-Control: no-store\r\n"+
		"Connection: close\r\n\r\n%s", code, http.StatusText(code), len(body), body)
	if _, err := c.Conn.Write(answer); err != nil {
		return 0, err
	}
	return len(p), nil
}

// CloseWrite lets net/http end an answer with a FIN, so that a reset for unread bytes does not destroy it.
func (c *clientConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
