package edge

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/selvedge/selvedge/internal/tunnel"
)

// greeter accepts connections that say something before they speak HTTP, a PROXY header or a TLS handshake, and passes those on to net/http
// that have said it. Each has a goroutine for that long, at most the head's timeout; descriptors bound how many there are.
type greeter struct {
	*listener

	done      chan net.Conn // greeted
	accepting sync.WaitGroup
	greetings sync.WaitGroup

	mu     sync.Mutex
	open   map[net.Conn]struct{} // being greeted
	ending bool
}

func newGreeter(e *Edge, ln net.Listener, index int) *greeter {
	g := &greeter{listener: newListener(e, ln, index), done: make(chan net.Conn), open: make(map[net.Conn]struct{})}
	g.accepting.Go(g.run)
	return g
}

func (g *greeter) run() {
	for {
		conn, err := g.accept()
		if err != nil {
			return // closed: accept survives everything else
		}
		if !g.enter(conn) {
			_ = conn.Close()
			return
		}
		g.greetings.Go(func() {
			c := g.greet(conn)
			g.leave(conn)
			if c == nil {
				return
			}
			select {
			case g.done <- c:
			case <-g.closed:
				_ = c.Close()
			}
		})
	}
}

func (g *greeter) enter(conn net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ending {
		return false
	}
	g.open[conn] = struct{}{}
	return true
}

func (g *greeter) leave(conn net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.open, conn)
}

// greet hears what conn has to say before HTTP, and returns the connection for net/http; nil: it has been closed.
func (g *greeter) greet(conn net.Conn) net.Conn {
	e := g.edge
	refuse := func(no reason, err error) net.Conn {
		e.metrics.refusals.WithLabelValues(string(no)).Inc()
		e.log.Debug("a connection is refused", zap.String("reason", string(no)), zap.Stringer("peer", conn.RemoteAddr()), zap.Error(err))
		_ = conn.Close()
		return nil
	}
	_ = conn.SetDeadline(time.Now().Add(e.headTimeout)) // fails on a closed connection, as the next call does
	live := e.live.Load()
	base := conn
	if e.cfg.Listen[g.index].ProxyProtocol {
		fronted, err := readProxyHeader(conn, live)
		if err != nil {
			return refuse(badProxyHeader, err)
		}
		base = fronted
	}
	c := g.client(base)
	config := live.tls[g.index]
	if config == nil {
		_ = conn.SetDeadline(time.Time{})
		return c
	}
	secure := tls.Server(tunnel.NewWire(base), config)
	if err := secure.Handshake(); err != nil {
		if no := (tls.RecordHeaderError{}); errors.As(err, &no) && no.Conn != nil && speaksHTTP(no.RecordHeader) {
			_ = c.answerItself(http.StatusBadRequest, refuseRequest("this port speaks TLS: use https")) // its loss
			_ = c.CloseWrite()
		}
		return refuse(badHandshake, err)
	}
	_ = conn.SetDeadline(time.Time{})
	if secure.ConnectionState().NegotiatedProtocol == "h2" {
		return secure // net/http knows HTTP/2 by this type
	}
	c.Conn = secure
	return secureConn{c}
}

// speaksHTTP tells whether the first bytes of what should be TLS are a request's.
func speaksHTTP(head [5]byte) bool {
	switch string(head[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET", "PATCH":
		return true
	}
	return false
}

// secureConn is a clientConn over TLS. net/http asks it for the state that becomes Request.TLS.
type secureConn struct{ *clientConn }

func (c secureConn) ConnectionState() tls.ConnectionState {
	return c.Conn.(*tls.Conn).ConnectionState()
}

// Accept returns the next connection that has been greeted.
func (g *greeter) Accept() (net.Conn, error) {
	select {
	case c := <-g.done:
		return c, nil
	case <-g.closed:
		return nil, net.ErrClosed
	}
}

// Close also ends the connections that are being greeted: none of them has been promised an answer.
func (g *greeter) Close() error {
	err := g.listener.Close()
	g.mu.Lock()
	g.ending = true
	for conn := range g.open {
		_ = conn.Close()
	}
	g.mu.Unlock()
	g.accepting.Wait()
	g.greetings.Wait()
	return err
}

// peerOf is the address of conn's other end; none where it is no TCP connection.
func peerOf(conn net.Conn) netip.Addr {
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// strangerError is a connection to a listener with the PROXY protocol from elsewhere than trusted_proxies.
type strangerError struct{ peer netip.Addr }

func (s strangerError) Error() string {
	return fmt.Sprintf("%v is not in trusted_proxies, and this listener takes connections from there only", s.peer)
}
