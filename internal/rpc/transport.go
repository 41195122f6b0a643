package rpc

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// DialTimeout is how long a connection to another process may take; inside a data centre it takes a millisecond.
	DialTimeout = time.Second

	handshakeTimeout = 3 * time.Second // TLS, the connection included
	pingAfter        = 5 * time.Second // of silence on a connection that has calls under way
	pingTimeout      = 3 * time.Second
	idleTimeout      = 5 * time.Minute
	headTimeout      = 10 * time.Second
	maxStreams       = 4096 // calls at once on one connection; more wait
)

// Client returns an HTTP client that shows token as a bearer token, if it is not empty, and holds one HTTP/2 connection to each
// address, opened when first needed. secure says how it speaks TLS to https URLs, of each new connection; nil: Go's defaults. closeAll ends its
// connections, calls under way included, and lets no new one be made.
func Client(token string, secure func() *tls.Config) (client *http.Client, closeAll func()) {
	if secure == nil {
		secure, _ = Credentials{}.Follow() // reads nothing
	}
	dialer := &trackingDialer{
		Dialer: net.Dialer{Timeout: DialTimeout, KeepAlive: 15 * time.Second}, secure: secure, open: make(map[*trackedConn]struct{}),
	}
	transport := &http.Transport{
		DialContext:     dialer.dial,
		DialTLSContext:  dialer.dialTLS,
		IdleConnTimeout: idleTimeout,
		Protocols:       protocols(false),
		HTTP2:           &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
	return &http.Client{Transport: &bearer{token, transport}}, func() {
		transport.CloseIdleConnections()
		dialer.close()
	}
}

// Server returns a server for handler that speaks HTTP/2 and HTTP/1.1, without TLS or, on what [Listener] returns, with it.
func Server(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headTimeout,
		IdleTimeout:       idleTimeout,
		Protocols:         protocols(true),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
}

func protocols(http1 bool) *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(http1)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(true)
	return p
}

// trackingDialer knows the connections it has made. [http.Transport] closes idle ones only, and one whose last call ended a moment
// ago is not idle yet: it would stay for idleTimeout.
type trackingDialer struct {
	net.Dialer
	secure func() *tls.Config

	mu     sync.Mutex
	open   map[*trackedConn]struct{}
	closed bool
}

type trackedConn struct {
	net.Conn
	dialer *trackingDialer
}

func (d *trackingDialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	tracked := &trackedConn{conn, d}
	d.open[tracked] = struct{}{}
	return tracked, nil
}

func (d *trackingDialer) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for c := range d.open {
		_ = c.Conn.Close()
	}
}

func (c *trackedConn) Close() error {
	c.dialer.mu.Lock()
	delete(c.dialer.open, c)
	c.dialer.mu.Unlock()
	return c.Conn.Close()
}

// bearer adds the credential to each request.
type bearer struct {
	token     string
	transport *http.Transport
}

func (b *bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.token != "" {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+b.token)
	}
	return b.transport.RoundTrip(r)
}
