package rpc

import (
	"context"
	"crypto/tls"
	"net"
	"sync"

	"github.com/selvedge/selvedge/internal/certs"
)

// Credentials is what a caller needs to speak TLS, 1.2 or later; each may be empty.
type Credentials struct {
	CA         string // PEM file of those who sign the callees' certificates; default: the system's
	Cert, Key  string // PEM files of the certificate that the caller shows; default: none
	ServerName string // that the callees' certificates must have; default: the host that is called
}

// Follow reads the files. They are read anew for each connection, so that renewed ones count; where that fails, what was good last does.
func (c Credentials) Follow() (func() *tls.Config, error) {
	last, err := c.read()
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	return func() *tls.Config {
		mu.Lock()
		defer mu.Unlock()
		if now, err := c.read(); err == nil {
			last = now
		}
		return last
	}, nil
}

func (c Credentials) read() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName, NextProtos: []string{"h2", "http/1.1"}}
	if c.CA != "" {
		pool, err := certs.Pool(c.CA)
		if err != nil {
			return nil, err
		}
		config.RootCAs = pool
	}
	if c.Cert != "" || c.Key != "" {
		pair, err := certs.Pair(c.Cert, c.Key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// Listener speaks TLS on ln, each connection by what current returns when it comes.
func Listener(ln net.Listener, current func() *tls.Config) net.Listener {
	return tls.NewListener(ln, &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return current(), nil },
	})
}

// URL is where an RPC listener's services are; secure: by TLS.
func URL(addr string, secure bool) string {
	if secure {
		return "https://" + addr
	}
	return "http://" + addr
}

// dialTLS is dial, and the handshake.
func (d *trackingDialer) dialTLS(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn, err := d.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	config := d.secure()
	if config.ServerName == "" {
		config = config.Clone()
		if config.ServerName, _, err = net.SplitHostPort(addr); err != nil {
			_ = conn.Close()
			return nil, err
		}
	}
	over := tls.Client(conn, config)
	if err := over.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return over, nil
}
