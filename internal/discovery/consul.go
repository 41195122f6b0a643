package discovery

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"go.uber.org/zap"
)

const (
	// consulWait is how long Consul may let a blocking query wait for news. It answers up to a sixteenth later.
	consulWait = time.Minute
	// consulGrace is what a query may take on top of its wait before contact counts as lost.
	consulGrace = 10 * time.Second
	// consulGap is the least time between the starts of two queries: changes that come in bursts are read together, and
	// an agent that does not wait (a cache between, an index of 0) is not asked in a tight loop.
	consulGap = 50 * time.Millisecond
)

// ConsulConfig says how to reach Consul. What is empty is taken from Consul's own environment variables (CONSUL_HTTP_ADDR,
// CONSUL_HTTP_TOKEN, CONSUL_HTTP_TOKEN_FILE, CONSUL_HTTP_SSL, CONSUL_CACERT, ...), then from Consul's defaults (127.0.0.1:8500).
type ConsulConfig struct {
	Addr       string // host:port, http(s)://host:port or unix:///path
	Token      string // needs service:read and node:read to watch, service:write to announce
	Datacenter string // "": the agent's own
	Tag        string // watch only instances that have it; announced members get it
	Stale      bool   // let any server answer, not only the leader: less load there, some milliseconds behind

	// PanicThreshold is, by service, the share of members that must be healthy for their health to be believed, 0 to 1. 0 is off;
	// a service that is not named has DefaultPanicThreshold. See DESIGN.md.
	PanicThreshold map[string]float64
}

// Consul finds and announces members through a Consul agent. Any goroutine may use it.
type Consul struct {
	conf      ConsulConfig
	client    *api.Client
	transport *http.Transport
	as        *api.Config // what client was made of, completed
	log       *zap.Logger

	watches sync.Map // service -> *counters
}

// NewConsul returns the source and announcer behind a Consul agent. It does not connect yet.
func NewConsul(conf ConsulConfig, log *zap.Logger) (*Consul, error) {
	if log == nil {
		log = zap.NewNop()
	}
	c := api.DefaultConfig()
	if conf.Addr != "" {
		c.Address = conf.Addr
	}
	if conf.Token != "" {
		c.Token, c.TokenFile = conf.Token, ""
	}
	if conf.Datacenter != "" {
		c.Datacenter = conf.Datacenter
	}
	client, err := api.NewClient(c)
	if err != nil {
		return nil, fmt.Errorf("consul: %w", err)
	}
	return &Consul{conf: conf, client: client, transport: c.Transport, as: c, log: log}, nil
}

// Watch reports the members of service, healthy or not, by blocking queries.
func (c *Consul) Watch(ctx context.Context, service string, update func([]Member)) error {
	defer c.transport.CloseIdleConnections()
	log := c.log.With(zap.String("service", service))
	w := catalogue{judge: judge{log: log, update: update, counters: c.countersOf(service), panicThreshold: c.panicThreshold(service)}}
	var failures backoff
	for ctx.Err() == nil {
		began := time.Now()
		entries, meta, err := c.query(ctx, service, &w)
		now := time.Now()
		if err == nil {
			err = w.trust(entries, meta)
		}
		if errors.Is(err, errUnseen) {
			err = c.unseen(ctx, service)
		}
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			w.lost(now, err)
			sleep(ctx, failures.next())
			continue
		}
		failures = 0
		w.take(now, entries, meta)
		sleep(ctx, consulGap-now.Sub(began))
	}
	return ctx.Err()
}

func (c *Consul) query(ctx context.Context, service string, w *catalogue) ([]*api.ServiceEntry, *api.QueryMeta, error) {
	wait := w.wait(time.Now())
	ctx, cancel := context.WithTimeout(ctx, wait+wait/16+consulGrace)
	defer cancel()
	options := &api.QueryOptions{AllowStale: c.conf.Stale, WaitIndex: w.index, WaitTime: wait}
	return c.client.Health().Service(service, c.conf.Tag, false, options.WithContext(ctx))
}

// Read returns the members of service as the servers have them, by a query that their leader answers once a quorum has confirmed that
// it leads. A token that sees only some of the instances is an error: who is missing would be taken for gone.
func (c *Consul) Read(ctx context.Context, service string) ([]Member, error) {
	options := &api.QueryOptions{RequireConsistent: true}
	entries, meta, err := c.client.Health().Service(service, c.conf.Tag, false, options.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("consul: read service %q: %w", service, err)
	}
	if meta.ResultsFilteredByACLs {
		return nil, fmt.Errorf("consul: read service %q: %w", service, c.unseen(ctx, service))
	}
	members, _ := choose(entries) // whoever watches logs the problems
	return members, nil
}

func (c *Consul) panicThreshold(service string) float64 {
	if threshold, set := c.conf.PanicThreshold[service]; set {
		return threshold
	}
	return DefaultPanicThreshold
}

func (c *Consul) countersOf(service string) *counters {
	of, _ := c.watches.LoadOrStore(service, new(counters))
	return of.(*counters)
}

func (c *Consul) trouble(service string) trouble { return c.countersOf(service).read() }

// catalogue is what a watch knows: Consul's last answer, what is in force of it, and whether Consul can be reached. It belongs to
// the goroutine that watches.
type catalogue struct {
	judge

	index    uint64    // for the next blocking query; 0 asks for an answer at once
	lostAt   time.Time // when contact was lost; zero while there is contact
	hold     hold
	held     []string // ids that the hold keeps, as logged last
	problems []string // as logged last
}

// wait is how long the next query may wait for news: not beyond a moment at which the same answer means something else.
func (w *catalogue) wait(now time.Time) time.Duration {
	wait := consulWait
	if w.hold.good != nil {
		wait = min(wait, w.hold.until.Sub(now))
	}
	if !w.damped.IsZero() {
		wait = min(wait, w.damped.Sub(now))
	}
	return max(wait, time.Millisecond)
}

// trust tells why an answer that came must not be believed. Such an answer counts as lost contact.
func (w *catalogue) trust(entries []*api.ServiceEntry, meta *api.QueryMeta) error {
	if meta.ResultsFilteredByACLs && len(entries) == 0 {
		return errUnseen
	}
	// A server that has just started answers stale queries from what it has replayed so far. Half of it is better than
	// nothing at the start of an edge, and worse than what an edge knows already. (Answers from an agent's own stream
	// say nothing about the leader.)
	if !meta.KnownLeader && meta.QueryBackend != "streaming" && (w.reported || len(entries) == 0) {
		return errors.New("the server knows no leader")
	}
	return nil
}

func (w *catalogue) lost(now time.Time, err error) {
	w.index = 0
	w.counters.lost()
	if w.reported {
		w.decide(now) // waiting goes on by the clock
	}
	if !w.lostAt.IsZero() {
		w.log.Debug("Consul still gives no answer that can be used", zap.Error(err))
		return
	}
	w.lostAt = now
	w.log.Warn("Consul gives no answer that can be used; the last members stay in force",
		zap.Int("members", len(w.inForce)), zap.Error(err))
}

// take believes an answer, as far as the hold lets it.
func (w *catalogue) take(now time.Time, entries []*api.ServiceEntry, meta *api.QueryMeta) {
	w.counters.stale.Store(false)
	index := meta.LastIndex
	switch {
	case !w.lostAt.IsZero():
		w.log.Info("Consul answers again", zap.Duration("away", now.Sub(w.lostAt)))
		w.lostAt = time.Time{}
		w.startHold(now)
	case index < w.index:
		w.log.Warn("Consul's index went backwards: its data are another's or older",
			zap.Uint64("from", w.index), zap.Uint64("to", index))
		w.counters.resets.Add(1)
		w.startHold(now)
		index = 0
	}
	w.index = index
	if w.hold.good != nil && !w.hold.active(now) {
		w.log.Info("the hold after the outage ends; Consul is believed", zap.Strings("held", w.held))
		w.hold, w.held = hold{}, nil
	}

	fresh, problems := choose(entries)
	if meta.ResultsFilteredByACLs {
		problems = append(problems, "the token does not see all instances; it needs node:read of their nodes")
	}
	for _, p := range problems {
		if !slices.Contains(w.problems, p) {
			w.log.Warn("the service in Consul is not as it should be", zap.String("problem", p))
		}
	}
	w.problems = problems
	members, held := w.hold.apply(now, fresh)
	if !slices.Equal(held, w.held) {
		w.log.Warn("members that Consul lost or calls critical stay in the ring until the hold ends",
			zap.Strings("held", held), zap.Time("until", w.hold.until))
		w.held = held
	}
	w.counters.held.Store(int64(len(held)))
	w.hear(now, members)
}

func (w *catalogue) startHold(now time.Time) {
	w.hold, w.held = newHold(now, w.inForce), nil
	if w.hold.good != nil {
		w.log.Info("hold after the outage begins", zap.Int("members", len(w.hold.good)), zap.Time("until", w.hold.until))
	}
}
