package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/selvedge/selvedge/internal/admin"
)

// adminListener is ln, by TLS where that is wanted; each connection sees the certificates that are in force then.
func (e *Edge) adminListener(ln net.Listener) net.Listener {
	if e.cfg.Admin.TLS == nil {
		return ln
	}
	return tls.NewListener(ln, &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return e.live.Load().adminTLS, nil },
	})
}

// adminServer serves the operator. HTTP/2 is on, without TLS too, for gRPC on the push service.
func (e *Edge) adminServer(work context.Context) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           e.adminHandler(),
		Protocols:         &protocols,
		ReadHeaderTimeout: headTimeout,
		IdleTimeout:       keepAliveTimeout,
		ErrorLog:          e.httpLog,
		BaseContext:       func(net.Listener) context.Context { return work },
	}
}

func (e *Edge) adminHandler() http.Handler {
	return admin.Handler(admin.Config{
		Token: func() string { return e.live.Load().adminToken },
		Ready: e.notReady,
		Show:  e.cfg.Metrics,
		Page:  pictures{e},
		RPC:   e.cfg.AdminHandler,
	})
}

// notReady says why no new client should be sent here; nil: one may. An edge is ready when it knows the members of all its services
// and at least one has some: a service without members,
// or one that came with a reload and cannot be seen yet, must not take the others' door away.
func (e *Edge) notReady() error {
	if e.draining.Load() {
		return errors.New("draining")
	}
	members := 0
	for name, s := range e.live.Load().services {
		select {
		case <-s.view.Ready():
			members += s.view.Snapshot().Ring.Len()
		default:
			if s.early {
				return fmt.Errorf("the members of service %s are not known yet", name)
			}
		}
	}
	if members == 0 {
		return errors.New("no service has a member")
	}
	return nil
}
