package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
	"go.uber.org/zap"
)

const (
	// heartbeat is how often a member shows a sign of life: four may get lost before HeartbeatTTL runs out, and Consul with
	// empty data is told again within one.
	heartbeat = 2 * time.Second
	// announceCall bounds one call to the local agent; a call that hangs must leave room for the next within HeartbeatTTL.
	announceCall = 2 * time.Second
	// farewell bounds the deregistration at the end. What it misses, DeregisterCriticalServiceAfter does.
	farewell = 3 * time.Second

	deregisterAfter = "1m"
)

// Announce registers the member with the local agent under a TTL check and keeps the check up every two seconds; a heartbeat that the
// agent refuses means that it has forgotten the member, which is then registered again at once. A registration that a newer
// incarnation has taken over is left to it at the end.
//
// Weight 0: Consul takes no passing weight below 1, but a warning weight of 0, and the contract counts the weight of the
// state an instance is in. So a member of weight 0 is registered with warning weight 0 and its check stands at warning.
func (c *Consul) Announce(ctx context.Context, service string, self <-chan Member) error {
	defer c.transport.CloseIdleConnections()
	a := announcement{consul: c, service: service, log: c.log.With(zap.String("service", service))}
	next := time.NewTimer(heartbeat)
	defer next.Stop()
	for {
		select {
		case m, open := <-self:
			if !open {
				self = nil
				continue
			}
			if err := announceable(a.self, m); err != nil {
				return err
			}
			if m == a.self {
				continue
			}
			a.self, a.stale = m, true
		case <-next.C:
		case <-ctx.Done():
			a.withdraw()
			return ctx.Err()
		}
		next.Reset(a.step(ctx))
	}
}

// announcement is one member's registration and what is known of it. It belongs to the goroutine that announces.
type announcement struct {
	consul  *Consul
	service string
	log     *zap.Logger

	self     Member // no ID: nothing to announce yet
	stale    bool   // the agent does not have self as it is
	failures backoff
	silent   time.Time // since when Consul takes nothing; zero while it does
}

// step registers what is not registered and shows a sign of life otherwise. It returns when to do so again.
func (a *announcement) step(ctx context.Context) time.Duration {
	if a.self.ID == "" {
		return heartbeat
	}
	var err error
	if !a.stale {
		err = a.beat(ctx, checkStatus(a.self))
		var refused api.StatusError
		if errors.As(err, &refused) {
			a.log.Warn("Consul refuses this member's heartbeat; registering it again", zap.Error(err))
			a.stale = true
		}
	}
	if a.stale {
		err = a.register(ctx)
		a.stale = err != nil
	}
	if ctx.Err() != nil {
		return heartbeat // the loop sees it, too
	}
	if err != nil {
		if a.silent.IsZero() {
			a.silent = time.Now()
			a.log.Warn("cannot announce this member to Consul; trying on", zap.Error(err))
		}
		return min(a.failures.next(), heartbeat)
	}
	if !a.silent.IsZero() {
		a.log.Info("this member is announced again", zap.Duration("away", time.Since(a.silent)))
	}
	a.failures, a.silent = 0, time.Time{}
	return heartbeat
}

// register makes the agent's registration what self is. The order sees to it that no watcher finds a weight that was never
// meant: the status and the weights are two writes, and the warning weight says the same as the passing one unless the
// weight is 0.
func (a *announcement) register(ctx context.Context) error {
	status := checkStatus(a.self)
	if status == api.HealthWarning {
		// Refused where nothing is registered yet, in which case the registration below brings the status.
		_ = a.beat(ctx, status)
	}
	call, cancel := context.WithTimeout(ctx, announceCall)
	defer cancel()
	opts := api.ServiceRegisterOpts{ReplaceExistingChecks: true}.WithContext(call)
	registration, err := a.registration()
	if err != nil {
		return err
	}
	if err := a.consul.client.Agent().ServiceRegisterOpts(registration, opts); err != nil {
		return fmt.Errorf("register: %w", err)
	}
	// A check that existed keeps its old status through a registration.
	return a.beat(ctx, status)
}

func (a *announcement) registration() (*api.AgentServiceRegistration, error) {
	m := a.self
	host, port, err := splitAddr(m.Addr)
	if err != nil {
		return nil, err
	}
	meta := map[string]string{
		metaID:          m.ID,
		metaIncarnation: strconv.FormatUint(m.Incarnation, 10),
		metaState:       m.State.String(),
	}
	if m.RPCAddr != "" {
		meta[metaRPC] = m.RPCAddr
	}
	if m.PublicURL != "" {
		meta[metaPublicURL] = m.PublicURL
	}
	r := &api.AgentServiceRegistration{
		ID:      m.ID,
		Name:    a.service,
		Address: host, // empty: the node's
		Port:    port,
		Meta:    meta,
		Weights: &api.AgentWeights{Passing: max(m.Weight, 1), Warning: m.Weight},
		Check: &api.AgentServiceCheck{
			CheckID:                        checkID(m),
			Name:                           "heartbeat",
			TTL:                            HeartbeatTTL.String(),
			Status:                         checkStatus(m),
			DeregisterCriticalServiceAfter: deregisterAfter,
		},
	}
	if a.consul.conf.Tag != "" {
		r.Tags = []string{a.consul.conf.Tag}
	}
	return r, nil
}

// beat is the sign of life. Its text never changes, so that it makes no news in the catalogue.
func (a *announcement) beat(ctx context.Context, status string) error {
	call, cancel := context.WithTimeout(ctx, announceCall)
	defer cancel()
	var note string
	if status == api.HealthWarning {
		note = "weight 0: known, takes no users"
	}
	options := new(api.QueryOptions).WithContext(call)
	if err := a.consul.client.Agent().UpdateTTLOpts(checkID(a.self), note, status, options); err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	return nil
}

// withdraw deregisters the member, unless its id has gone over to a newer incarnation on this agent.
func (a *announcement) withdraw() {
	if a.self.ID == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	options := new(api.QueryOptions).WithContext(ctx)
	agent := a.consul.client.Agent()
	there, _, err := agent.Service(a.self.ID, options)
	var refused api.StatusError
	switch {
	case errors.As(err, &refused) && refused.Code == http.StatusNotFound:
		return
	case err == nil:
		if n, _ := strconv.ParseUint(there.Meta[metaIncarnation], 10, 64); n > a.self.Incarnation {
			a.log.Info("a newer incarnation is registered; leaving the registration to it")
			return
		}
	}
	if err := agent.ServiceDeregisterOpts(a.self.ID, options); err != nil {
		a.log.Warn("cannot deregister; Consul will after "+deregisterAfter+" without a heartbeat", zap.Error(err))
	}
}

func checkID(m Member) string { return "service:" + m.ID }

func checkStatus(m Member) string {
	if m.Weight == 0 {
		return api.HealthWarning
	}
	return api.HealthPassing
}

// announceable tells what keeps m from following last as one member's announcement.
func announceable(last, m Member) error {
	switch {
	case validateID(m.ID) != nil:
		return fmt.Errorf("announce: %w", validateID(m.ID))
	case strings.ContainsAny(m.ID, "/?#%"):
		return fmt.Errorf("announce: id %q: / ? # %% cannot stand in an id", clip(m.ID))
	case last.ID != "" && last.ID != m.ID:
		return fmt.Errorf("announce: the member's id changed from %q to %q; announce that member apart", clip(last.ID), clip(m.ID))
	case validateWeight(m.Weight) != nil:
		return fmt.Errorf("announce: %w", validateWeight(m.Weight))
	}
	if _, _, err := splitAddr(m.Addr); err != nil {
		return fmt.Errorf("announce: address %w", err)
	}
	if _, _, err := splitAddr(cmp.Or(m.RPCAddr, m.Addr)); err != nil {
		return fmt.Errorf("announce: RPC address %w", err)
	}
	return nil
}
