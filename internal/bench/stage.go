package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/selvedge/selvedge/backend/sender"
)

// pushStage is all that [Push] has up. Whoever shares sessions has its turn alone.
type pushStage struct {
	env      Env
	cfg      PushConfig
	brokers  *brokers // nil where no way needs them
	clusters []*cluster
	flocks   []*flock
	crowds   []*crowd
	bridge   *process
	trials   []*pushTrial
}

func (s *pushStage) has(ways ...string) bool {
	return slices.ContainsFunc(ways, func(way string) bool { return slices.Contains(s.cfg.Ways, way) })
}

// set brings everything up, and returns when our backends have come to rest.
func (s *pushStage) set(ctx context.Context) (err error) {
	if s.has(WayRedis, WayPipelined, WayRabbitMQ, WayBridge) {
		if s.brokers, err = startBrokers(ctx); err != nil {
			return err
		}
	}
	// All before the first session is opened: their ports are chosen beforehand, and clients use up free ones by the thousand.
	for _, n := range s.cfg.Backends {
		if s.has(WaySelvedge) || s.has(WayBridge) && n == bridgeBackends {
			c, err := startCluster(ctx, s.env, n, fmt.Sprintf("SELVEDGE_BACKEND__PING_EVERY=%v", pushPingEvery))
			if err != nil {
				return fmt.Errorf("%d backends: %w", n, err)
			}
			s.clusters = append(s.clusters, c)
		}
	}
	for _, c := range s.clusters {
		if err := s.addCluster(ctx, c); err != nil {
			return fmt.Errorf("%d backends: %w", len(c.backends), err)
		}
	}
	for _, n := range s.cfg.Backends {
		if s.has(WayRedis, WayPipelined, WayRabbitMQ) {
			if err := s.addFlock(ctx, n); err != nil {
				return fmt.Errorf("%d fan-out servers: %w", n, err)
			}
		}
	}
	for _, t := range s.trials {
		if err := t.comeToRest(ctx); err != nil {
			return fmt.Errorf("%s: %w", t, err)
		}
	}
	return s.idle(ctx)
}

// idle measures what all that is up takes while nobody pushes.
func (s *pushStage) idle(ctx context.Context) error {
	used := make([]time.Duration, len(s.trials))
	read := func() (err error) {
		for i, t := range s.trials {
			before := used[i]
			if used[i], err = cpuOf(t.pids...); err != nil {
				return err
			}
			t.row.Idle = microseconds(used[i]-before) / s.cfg.Idle.Seconds()
		}
		return nil
	}
	if err := read(); err != nil {
		return err
	}
	if err := pause(ctx, s.cfg.Idle); err != nil {
		return err
	}
	return read()
}

// addCluster connects every user to its own backend, without an edge: what edges cost is [Sessions]' matter.
func (s *pushStage) addCluster(ctx context.Context, c *cluster) error {
	n := len(c.backends)
	to, err := sender.New(sender.Config{Membership: sender.Membership{Registry: c.registry}})
	if err != nil {
		return err
	}
	t := &pushTrial{cfg: s.cfg, row: PushRow{Way: WaySelvedge, Backends: n}, publisher: toOwner{to}, pids: c.pids(), cluster: c}
	s.trials = append(s.trials, t)
	t.crowd, err = s.connect(ctx, "/ws", func(user int) string {
		owner, _ := to.Owner(ctx, userName(user))
		return owner.Addr
	})
	if err != nil {
		return err
	}
	if err := t.reach(ctx, s.cfg.Users); err != nil {
		return err
	}
	t.row.Changed = new(PushRound)
	if err := t.closed(ctx, t.row.Changed); err != nil {
		return err
	}
	if s.has(WayBridge) && n == bridgeBackends {
		return s.addBridge(ctx, t)
	}
	return nil
}

// addBridge puts a bridge beside RabbitMQ for a publisher that stays as it is: its pushes go to the backends of home, and to their sessions.
func (s *pushStage) addBridge(ctx context.Context, home *pushTrial) (err error) {
	const exchange = "pushes-bridge"
	s.bridge, err = home.cluster.start("bridge", "reading the broker", "bridge", "--amqp", s.brokers.amqpURL, "--queue", "pushes",
		"--exchange", exchange, "--user", "header:"+headerUser, "--binary", "--admin", "off")
	if err != nil {
		return err
	}
	if _, err := s.bridge.up(ctx); err != nil {
		return err
	}
	t := &pushTrial{cfg: s.cfg, row: PushRow{Way: WayBridge, Backends: home.row.Backends}, crowd: home.crowd, cluster: home.cluster}
	t.pids = slices.Concat(home.pids, s.brokers.rabbitPIDs, []int{s.bridge.pid()})
	to, err := newToExchange(s.brokers, exchange)
	if err != nil {
		return err
	}
	t.publisher = to
	s.trials = append(s.trials, t)
	return t.reach(ctx, s.cfg.Users)
}

// addFlock brings up n fan-out servers, which get their sessions from a balancer that takes one server after the other.
func (s *pushStage) addFlock(ctx context.Context, n int) error {
	f, err := startFlock(ctx, s.env, s.brokers, n)
	if err != nil {
		return err
	}
	s.flocks = append(s.flocks, f)
	crowd, err := s.connect(ctx, "/", func(user int) string { return f.addrs[user%n] })
	if err != nil {
		return err
	}
	for _, way := range []string{WayRedis, WayPipelined, WayRabbitMQ} {
		if !s.has(way) {
			continue
		}
		t := &pushTrial{cfg: s.cfg, row: PushRow{Way: way, Backends: n}, crowd: crowd}
		t.pids = append(f.pids(), s.brokers.redisPIDs...)
		if way == WayRabbitMQ {
			t.pids = append(f.pids(), s.brokers.rabbitPIDs...)
		}
		if t.publisher, err = s.publisher(way, f); err != nil {
			return err
		}
		s.trials = append(s.trials, t)
		if err := t.reach(ctx, s.cfg.Users); err != nil {
			return fmt.Errorf("%s: %w", t, err)
		}
	}
	return nil
}

func (s *pushStage) publisher(way string, f *flock) (publisher, error) {
	if way == WayRabbitMQ {
		return newToExchange(s.brokers, f.name)
	}
	return newToChannel(s.brokers, f.name, len(f.servers), way == WayPipelined)
}

// connect opens the session of each user, at addr(user).
func (s *pushStage) connect(ctx context.Context, path string, addr func(user int) string) (*crowd, error) {
	c, err := startCrowd(s.env, 1+(s.cfg.Users-1)/sessionsPerProcess(descriptorLimit()))
	if err != nil {
		return nil, err
	}
	s.crowds = append(s.crowds, c)
	return c, c.open(ctx, 0, s.cfg.Users, path, true, addr)
}

func (s *pushStage) end() {
	for _, t := range s.trials {
		t.publisher.close()
	}
	for _, c := range s.crowds {
		c.kill()
	}
	s.bridge.kill()
	for _, c := range s.clusters {
		c.kill()
	}
	for _, f := range s.flocks {
		f.kill()
	}
	if s.brokers != nil {
		s.brokers.kill()
	}
}
