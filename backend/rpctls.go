package backend

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"

	"github.com/selvedge/selvedge/internal/certs"
	"github.com/selvedge/selvedge/internal/config"
	"github.com/selvedge/selvedge/internal/rpc"
)

// rpcTLS is what a RPCTLS names.
type rpcTLS struct {
	server  *tls.Config
	members *x509.CertPool // who signs the members' certificates, where they are told from senders by these
}

func newRPCTLS(c *RPCTLS) (*rpcTLS, error) {
	if c == nil {
		return nil, nil
	}
	pair, err := certs.Pair(c.Cert, c.Key)
	if err != nil {
		return nil, config.Under("cert", err)
	}
	t := &rpcTLS{server: &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, Certificates: []tls.Certificate{pair}}}
	if c.ClientCA == "" {
		return t, nil
	}
	all := []string{c.ClientCA}
	if c.CA != "" {
		if t.members, err = certs.Pool(c.CA); err != nil {
			return nil, config.Under("ca", err)
		}
		all = append(all, c.CA)
	}
	if t.server.ClientCAs, err = certs.Pool(all...); err != nil {
		return nil, config.Under("client_ca", err)
	}
	t.server.ClientAuth = tls.RequireAndVerifyClientCert
	return t, nil
}

// secured is ln, by TLS where that is wanted; each connection sees the certificates that are in force then.
func (b *Backend) secured(ln net.Listener) net.Listener {
	if b.cfg.RPCTLS == nil {
		return ln
	}
	return rpc.Listener(ln, func() *tls.Config { return b.live.Load().rpcTLS.server })
}

// callerTLS is how the other members are called; nil: without TLS.
func (b *Backend) callerTLS() (func() *tls.Config, error) {
	c := b.cfg.RPCTLS
	if c == nil {
		return nil, nil
	}
	return rpc.Credentials{CA: cmp.Or(c.CA, c.ClientCA), Cert: c.Cert, Key: c.Key, ServerName: c.ServerName}.Follow()
}

// membersOnly refuses who shows a sender's certificate, where certificates are all that tells members from senders.
func (b *Backend) membersOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if t := b.live.Load().rpcTLS; t != nil && t.members != nil && b.cfg.PeerToken == "" && !t.isMember(r.TLS) {
			http.Error(w, "this certificate is no member's: backend.rpc.tls.ca has not signed it", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (t *rpcTLS) isMember(conn *tls.ConnectionState) bool {
	if conn == nil || len(conn.PeerCertificates) == 0 {
		return false
	}
	between := x509.NewCertPool()
	for _, c := range conn.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := conn.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: t.members, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err == nil
}
