package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/selvedge/selvedge/internal/discovery"
)

const (
	registryPatience = 5 * time.Second // for an answer of the registry
	agreePatience    = 3 * time.Second // for rings to become the same: what changes is seen by everybody within a second or two
	agreeEvery       = 500 * time.Millisecond
)

// cluster examines the registry, and the processes of each service.
func (e *examination) cluster(ctx context.Context) error {
	membership, err := e.Settings.Membership()
	if err != nil {
		return err
	}
	processes, err := e.processes()
	if err != nil {
		return err
	}
	defer processes.close()
	for _, service := range e.services() {
		source, err := membership.Open(service, e.Logger)
		if err != nil {
			return err
		}
		if consul, is := source.(*discovery.Consul); is && !e.consul(ctx, consul, service) {
			continue
		}
		view := discovery.NewView(service, source, e.Logger, membership.RingOptions(service)...)
		if err := e.service(ctx, view, processes, service); err != nil {
			return err
		}
	}
	processes.report()
	return nil
}

// consul tells whether there is a Consul that can be asked for members.
func (e *examination) consul(ctx context.Context, consul *discovery.Consul, service string) bool {
	const check, rights = "consul", "rights"
	ctx, cancel := context.WithTimeout(ctx, registryPatience)
	defer cancel()
	leader, err := consul.Leader(ctx)
	switch {
	case err != nil:
		e.found(check, Bad, err.Error(), "start the Consul agent, or say where it is: --consul ADDRESS, consul.addr or CONSUL_HTTP_ADDR")
		return false
	case leader == "":
		e.found(check, Bad, "the agent answers, and knows no leader: nothing can be registered, and what it tells may be old", "see to Consul's servers: consul operator raft list-peers")
	default:
		e.good(check, "the agent answers; "+leader+" leads")
	}
	const mend = `give the token a policy such as: service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`
	lacks, err := consul.Lacks(ctx, service, e.forBackend())
	if err != nil {
		e.found(rights, Bad, err.Error(), "set consul.token_file or CONSUL_HTTP_TOKEN to a token that Consul knows")
		return true
	}
	members, readErr := consul.Read(ctx, service)
	switch {
	case readErr != nil:
		e.found(rights, Bad, readErr.Error(), mend)
	case len(lacks) == 0:
		e.good(rights, fmt.Sprintf("the token may do what service %s takes", service))
	case len(lacks) == 1 && len(members) > 0 && !e.forBackend(): // node:read of the nodes that there are is enough
		e.good(rights, fmt.Sprintf("the token sees all instances of service %s", service))
	default:
		if e.forBackend() {
			e.found(rights, Bad, "the token lacks "+strings.Join(lacks, ", "), fmt.Sprintf(`%s, and service "%s" { policy = "write" }`, mend, service))
		} else {
			e.found(rights, Bad, "the token lacks "+strings.Join(lacks, ", "), mend)
		}
	}
	return true
}

// service examines the members of one, and the ring that they and the edges decide by.
func (e *examination) service(ctx context.Context, view *discovery.View, all *processes, service string) error {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- view.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			e.Logger.Debug("the registry was given up", zap.Error(err))
		}
	}()
	patience := time.NewTimer(registryPatience)
	defer patience.Stop()
	select {
	case <-view.Ready():
	case err := <-ended:
		ended <- nil
		return err
	case <-patience.C:
		e.found("members", Bad, fmt.Sprintf("the registry does not name the members of service %s", service), "mend what is said of the registry above")
		return nil
	}
	e.members(view.Snapshot())
	deadline := time.Now().Add(agreePatience)
	for {
		rings := all.ask(ctx, view.Snapshot())
		if rings.agree() || time.Now().After(deadline) || ctx.Err() != nil {
			e.rings(rings)
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(agreeEvery):
		}
	}
}

// members says how many can have users, and why others cannot.
func (e *examination) members(s *discovery.Snapshot) {
	const check = "members"
	if s.Ring.Len() == 0 {
		e.found(check, Bad, fmt.Sprintf("service %s has no member that can have users, of %d that are known", s.Service, len(s.Members)),
			"start a backend: selvedge backend --service "+s.Service+", or name the service that there is: --service NAME")
		return
	}
	e.good(check, fmt.Sprintf("service %s: %d of %d on the ring", s.Service, s.Ring.Len(), len(s.Members)))
	for _, m := range s.Members {
		switch {
		case m.Override == discovery.Kept:
			e.found(check, Bad, fmt.Sprintf("%s is critical, as so many others that their health is not believed", m.ID), "see why the health checks fail; services.NAME.panic_threshold says from which share on")
		case m.Override == discovery.Damped:
			e.found(check, Warning, m.ID+" waits outside the ring, since it has come back too often", "see why its health check flaps")
		case m.Health == discovery.Critical:
			e.found(check, Warning, m.ID+" is critical, and out of the ring", "see its log; if its host is gone for good: selvedge ring bury "+m.ID)
		case m.RPCAddr == "":
			e.found(check, Warning, m.ID+" has no push service: users can be routed to it, and nobody can push to them", "build it with package backend, or register it with the meta selvedge-rpc")
		}
	}
}
