package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/backend/sender"
	"github.com/selvedge/selvedge/edge"
	"github.com/selvedge/selvedge/internal/config"
	"github.com/selvedge/selvedge/internal/discovery"
)

// pushPorts is the push service of an edge's admin port: a sender for each service that its routes name. A caller chooses with the
// header Selvedge-Service; an edge with one service needs none. It collects the metrics of its senders, those that are in use.
type pushPorts struct {
	tracer trace.TracerProvider // nil: nothing is traced

	mu    sync.RWMutex
	names []string
	ports map[string]pushPort // by service
}

// pushPort sees the members that the edge routes by.
type pushPort struct {
	view    *discovery.View
	secure  sender.TLS // the zero value: none
	sender  *sender.Sender
	handler http.Handler
	metrics *prometheus.Registry
}

const serviceHeader = "Selvedge-Service"

var refusals = connect.NewErrorWriter()

// open makes the senders of services, and closes those of others. It is called before the first request comes, and after each reload.
func (p *pushPorts) open(e *edge.Edge, services []string, settings *config.Settings) error {
	ports := make(map[string]pushPort)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, service := range services {
		port := p.ports[service]
		var secure sender.TLS
		if t := settings.Services[service].RPCTLS; t != nil {
			secure = sender.TLS(*t)
		}
		if view := e.View(service); port.view != view || port.secure != secure {
			metrics := prometheus.NewRegistry()
			cfg := sender.Config{Service: service, View: view, Token: os.Getenv("SELVEDGE_TOKEN"), Metrics: metrics, Tracer: p.tracer}
			if secure != (sender.TLS{}) {
				cfg.TLS = &secure
			}
			s, err := sender.New(cfg)
			if err != nil {
				return settings.Locate(config.Under("services."+service+".rpc_tls", err))
			}
			port = pushPort{view, secure, s, s.Handler(), metrics}
		}
		ports[service] = port
	}
	for service, port := range p.ports {
		if ports[service].sender != port.sender {
			go port.sender.Close() // it waits for the calls under way
		}
	}
	p.names, p.ports = services, ports
	return nil
}

func (p *pushPorts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	service := r.Header.Get(serviceHeader)
	p.mu.RLock()
	if service == "" && len(p.names) == 1 {
		service = p.names[0]
	}
	handler, names := p.ports[service].handler, p.names
	p.mu.RUnlock()
	if handler == nil {
		_ = refusals.Write(w, r, connect.NewError(connect.CodeNotFound,
			errors.New("name one of this edge's services in the header "+serviceHeader+": "+strings.Join(names, ", ")))) // a caller that is gone does not care
		return
	}
	handler.ServeHTTP(w, r)
}

// Describe tells nothing: which services there are changes with each reload. One that has come back may still be left by its old sender, so that both
// could not stand in one registry.
func (p *pushPorts) Describe(chan<- *prometheus.Desc) {}

func (p *pushPorts) Collect(ch chan<- prometheus.Metric) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, port := range p.ports {
		port.metrics.Collect(ch)
	}
}

// status asks a member of a service how it is.
func (p *pushPorts) status(ctx context.Context, service string, r *pushv1.StatusRequest) (*pushv1.StatusResponse, error) {
	p.mu.RLock()
	port, known := p.ports[service]
	p.mu.RUnlock()
	if !known {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("no route names service %q any more", service))
	}
	return port.sender.Status(ctx, r)
}

func (p *pushPorts) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, port := range p.ports {
		port.sender.Close()
	}
}
