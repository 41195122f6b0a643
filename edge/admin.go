package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/selvedge/selvedge/internal/admin"
	"github.com/selvedge/selvedge/internal/discovery"
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
		Page:  http.HandlerFunc(e.page),
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

var pageTemplate = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{.Name}} - Selvedge edge</title>
<style>
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .25rem 1rem .25rem 0 }
</style>
<h1>Edge {{.Name}}</h1>
<p>{{if .NotReady}}<strong>Not ready:</strong> {{.NotReady}}.{{else}}Ready.{{end}}
{{.Sessions}} sessions open, at most {{.Limit}}. <a href="/metrics">Metrics</a></p>
{{range .Services}}
<h2>Service {{.Name}}</h2>
<p>{{.Sessions}} sessions. Ring {{.Digest}} of {{.Ring}} members.</p>
<table><tr><th>Member<th>Address<th>Health<th>State<th>Weight<th>In the ring</tr>
{{range .Members}}<tr><td>{{.ID}}<td>{{.Addr}}<td>{{.Health}}<td>{{.State}}<td>{{.Weight}}<td>{{if .InRing}}yes{{else}}no{{end}}{{with .Override.String}}, {{.}}{{end}}</tr>
{{else}}<tr><td colspan="6">No member is known.</tr>
{{end}}</table>
{{end}}</html>
`))

func (e *Edge) page(w http.ResponseWriter, _ *http.Request) {
	type serviceView struct {
		Name, Digest string
		Sessions     int64
		Ring         int
		Members      []discovery.Member
	}
	followed := e.followed()
	services := make([]serviceView, 0, len(followed))
	for name, s := range followed {
		snap := s.view.Snapshot()
		services = append(services, serviceView{name, snap.Ring.Digest(), s.open.Load(), snap.Ring.Len(), snap.Members})
	}
	slices.SortFunc(services, func(a, b serviceView) int { return strings.Compare(a.Name, b.Name) })
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	err := pageTemplate.Execute(w, map[string]any{
		"Name": e.cfg.Name, "NotReady": e.notReady(), "Sessions": e.Sessions(), "Limit": e.sessions.most(), "Services": services,
	})
	if err != nil {
		e.log.Debug("the admin page broke off", zap.Error(err))
	}
}
