package edge

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/selvedge/selvedge/internal/certs"
	"github.com/selvedge/selvedge/internal/config"
	"github.com/selvedge/selvedge/internal/tunnel"
)

// clientConfig reads the files that t names, which may be nil: then there is no TLS. The error says which of them is wrong.
func (t *MemberTLS) clientConfig() (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	c := &tls.Config{
		MinVersion:                  tls.VersionTLS12,
		ServerName:                  t.ServerName,
		NextProtos:                  []string{"http/1.1"},
		ClientSessionCache:          tls.NewLRUClientSessionCache(0),
		DynamicRecordSizingDisabled: true, // as towards clients
	}
	if t.CA != "" {
		pool, err := certs.Pool(t.CA)
		if err != nil {
			return nil, config.Under("ca", err)
		}
		c.RootCAs = pool
	}
	if t.Cert != "" || t.Key != "" {
		pair, err := certs.Pair(t.Cert, t.Key)
		if err != nil {
			return nil, config.Under("cert", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// ends are a client's connection as a PROXY header tells it to a member.
type ends struct {
	client netip.AddrPort // not valid: unknown
	local  net.Addr
	name   string // the member's, where the one who dials knows more than the view
}

// endsOf are those of the request in x. The client that a trusted proxy names has no port.
func endsOf(ctx context.Context, x *exchange) ends {
	local, _ := ctx.Value(http.LocalAddrContextKey).(net.Addr)
	client := x.head.Peer
	if x.head.Client != client.Addr().Unmap().WithZone("") {
		client = netip.AddrPortFrom(x.head.Client, 0)
	}
	return ends{client: client, local: local}
}

// endsKey is where the context of a plain request has its ends, for the dial that it may cause.
type endsKey struct{}

// speaksFirst tells whether members are told something before HTTP, which the reactor leaves to net/http's path.
func (s *service) speaksFirst() bool { return s.cfg.ProxyProtocol != "" || s.tls != nil }

// introduce says on a new connection to the member at addr what comes before HTTP: the PROXY header and the TLS handshake. It takes conn,
// and closes it with an error.
func (s *service) introduce(ctx context.Context, conn net.Conn, addr string, from ends, until time.Time) (_ net.Conn, err error) {
	secure := s.tls
	if s.cfg.ProxyProtocol == "" && secure == nil {
		return conn, nil
	}
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	if err := conn.SetDeadline(until); err != nil {
		return nil, err
	}
	if s.cfg.ProxyProtocol != "" {
		if _, err := conn.Write(proxyHeader(s.cfg.ProxyProtocol, from.client, from.local)); err != nil {
			return nil, err
		}
	}
	if secure != nil {
		if secure.ServerName == "" {
			host, err := s.hostOf(addr)
			if err != nil {
				return nil, err
			}
			secure = secure.Clone()
			secure.ServerName = cmp.Or(from.name, host)
		}
		over := tls.Client(tunnel.NewWire(conn), secure)
		if err := over.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("TLS with the member: %w", err)
		}
		conn = over
	}
	return conn, conn.SetDeadline(time.Time{})
}
