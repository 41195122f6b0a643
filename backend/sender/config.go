package sender

import (
	"errors"
	"fmt"
	"net/url"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/selvedge/selvedge/internal/discovery"
)

// Membership says where the members of the service are found; exactly one of its fields is set.
type Membership = discovery.Membership

// Consul names a Consul agent; the zero value is the local one, or the one that Consul's environment variables name.
type Consul = discovery.ConsulConfig

// Config is a sender's configuration. One of Membership, View and Via is given.
type Config struct {
	// Service is the name under which the members stand in the registry. Default: "default", and with Via the only service that an edge has.
	Service string
	// Membership says where the members are found; the sender then calls each user's home directly.
	Membership Membership
	// View, in place of Membership, is one that this process follows already and goes on running: edges route and push by one.
	View *discovery.View
	// Via is the URL, http or https, of any member's RPC port, or of an edge's admin port, through which everything goes.
	Via string
	// Token is the bearer token of the push service; empty where it asks for none.
	Token string
	// TLS says how the push service is called where it speaks TLS; with Membership or View it has members called by TLS. Its files are
	// read anew for each connection. Default: Go's defaults for a Via of https, else none.
	TLS *TLS
	// Metrics is where the sender registers its metrics until it is closed. Default: nowhere.
	Metrics *prometheus.Registry
	// Tracer makes spans of pushes, and of the calls that they take. Default: none are made.
	Tracer trace.TracerProvider
	// Logger gets what an operator should know. Default: nothing is logged.
	Logger *zap.Logger
}

// TLS is what a caller of members that speak TLS has to know; each may be empty.
type TLS struct {
	CA         string // PEM file of those who sign the members' certificates; default: the system's
	Cert, Key  string // PEM files of the certificate that the sender shows; default: none
	ServerName string // that the members' certificates must have; default: the host of the member's address
}

func (c Config) check() error {
	given := 0
	for _, set := range []bool{c.Via != "", c.View != nil, c.Membership != (Membership{})} {
		if set {
			given++
		}
	}
	if given > 1 {
		return errors.New("more than one of Via, View and Membership are given; choose one")
	}
	if c.Via == "" {
		return nil // Membership checks itself
	}
	u, err := url.Parse(c.Via)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("Via: %q is no URL of a push service; want http://HOST:PORT or https://HOST:PORT", c.Via)
	}
	if u.Scheme == "http" && c.TLS != nil {
		return fmt.Errorf("Via: %q is without TLS, which TLS is set for; want https://HOST:PORT", c.Via)
	}
	return nil
}
