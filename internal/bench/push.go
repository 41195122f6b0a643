package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// The ways on which a push gets to the process that holds the user's session.
const (
	WaySelvedge  = "Selvedge"        // hashed to the owner: package sender and `selvedge backend`
	WayRedis     = "Redis"           // pub/sub: to every server, which looks through its sessions
	WayPipelined = "Redis pipelined" // the same, with a publisher that shares round trips
	WayRabbitMQ  = "RabbitMQ"        // fanout exchange: to every server, which looks through its sessions
	WayBridge    = "bridge"          // RabbitMQ to one `selvedge bridge`, and from there to the owner
)

// bridgeBackends is the number of backends that the bridge is measured with.
const bridgeBackends = 4

// PushConfig says how much [Push] does.
type PushConfig struct {
	Users    int           // online, one session each
	Backends []int         // numbers of backends that are compared
	Ways     []string      // that are compared; the brokers are started where one needs them
	Settle   time.Duration // how long the backends may take to come to rest before the rounds; 0: the rounds do not wait for it
	Idle     time.Duration // that nobody pushes, to see what being there costs
	Rounds   int           // of each
	Closed   time.Duration // of the closed loop in a round
	Rate     int           // pushes per second at the fixed rate
	Paced    int           // pushes at the fixed rate in a round
}

// PushDefaults takes about ten minutes.
func PushDefaults() PushConfig {
	return PushConfig{
		Users: 16_000, Backends: []int{1, 2, 4, 8, 16}, Ways: []string{WaySelvedge, WayRedis, WayPipelined, WayRabbitMQ, WayBridge},
		Settle: 2 * time.Minute, Idle: 5 * time.Second, Rounds: 5, Closed: 1500 * time.Millisecond, Rate: 2000, Paced: 4000,
	}
}

// PushShort takes seconds, and shows that everything works; its figures mean little.
func PushShort() PushConfig {
	cfg := PushDefaults()
	cfg.Users, cfg.Backends, cfg.Settle, cfg.Idle, cfg.Rounds = 60, []int{1, bridgeBackends}, 0, 200*time.Millisecond, 1
	cfg.Closed, cfg.Rate, cfg.Paced = 300*time.Millisecond, 500, 150
	return cfg
}

// PushReport is what [Push] found.
type PushReport struct {
	Kind     string     `json:"benchmark"`
	Machine  Machine    `json:"machine"`
	Config   PushConfig `json:"config"`
	Rows     []PushRow  `json:"rows"`
	Musts    []Must     `json:"musts"`
	Versions []string   `json:"versions"` // of the brokers
	// Pacing is the processor time per push, in microseconds, that the load generator takes to start one at its time. It is part
	// of each PacedCPU.
	Pacing float64 `json:"cpu_us_pacing"`
}

// PushRow is a way with a number of backends: medians over the rounds, and the sums of what was pushed.
type PushRow struct {
	Way      string      `json:"way"`
	Backends int         `json:"backends"`
	Median   PushRound   `json:"median"`
	Idle     float64     `json:"cpu_us_idle"`              // microseconds per second that broker, bridge and backends take while nobody pushes
	Changed  *PushRound  `json:"after_a_change,omitempty"` // Selvedge, closed loop only, once, right after the members came together
	Pushes   int         `json:"pushes"`                   // that the publisher was told are taken, over all rounds and phases
	Messages int         `json:"delivered"`                // that clients got, each once
	Rounds   []PushRound `json:"rounds"`
}

// PushRound is one round's figures. Processor time is that of publisher, broker, bridge and all backends together, until the last message
// has come.
type PushRound struct {
	PerSecond float64 `json:"pushes_per_second"`       // closed loop
	ClosedCPU float64 `json:"cpu_us_closed"`           // microseconds per push, closed loop
	Asks      float64 `json:"asks_per_push"`           // questions that backends put to each other, closed loop
	PacedCPU  float64 `json:"cpu_us_paced"`            // microseconds per push at the fixed rate
	OwnCPU    float64 `json:"cpu_us_paced_publisher"`  // the publisher's part of it
	ClientP50 float64 `json:"client_p50_us"`           // from when a push was due until its client had it, at the fixed rate
	ClientP99 float64 `json:"client_p99_us"`           //
	AnswerP50 float64 `json:"publisher_answer_p50_us"` // until the publisher knew what it is told on this way
	AnswerP99 float64 `json:"publisher_answer_p99_us"` //
}

// Push measures what a push costs on several ways and with several numbers of backends: the publisher is this process, clients are others.
func Push(ctx context.Context, env Env, cfg PushConfig) (report *PushReport, err error) {
	report = &PushReport{Kind: "push", Machine: thisMachine(env), Config: cfg}
	pacing, err := pacingCost(cfg.Rate)
	if err != nil {
		return nil, err
	}
	report.Pacing = microseconds(pacing)
	stage := &pushStage{env: env, cfg: cfg}
	defer stage.end()
	if err := stage.set(ctx); err != nil {
		return nil, err
	}
	if b := stage.brokers; b != nil {
		report.Versions = []string{b.redisVersion, b.rabbitVersion}
	}
	for round := range cfg.Rounds {
		for i := range stage.trials {
			t := stage.trials[(i+round)%len(stage.trials)]
			r, err := t.run(ctx)
			if err != nil {
				return nil, fmt.Errorf("round %d, %s: %w", round+1, t, err)
			}
			t.row.Rounds = append(t.row.Rounds, r)
			env.Progress(fmt.Sprintf("round %d of %d, %s: %.0f pushes/s, %.1f us CPU per push; at %d/s %.1f us CPU (publisher %.1f), %.0f us to the client",
				round+1, cfg.Rounds, t, r.PerSecond, r.ClosedCPU, cfg.Rate, r.PacedCPU, r.OwnCPU, r.ClientP50))
		}
	}
	for _, t := range stage.trials {
		// A message that came late or again is in front of the next one in its session, and would show here.
		if err := t.reach(ctx, cfg.Users); err != nil {
			return nil, fmt.Errorf("after all rounds, %s: %w", t, err)
		}
		t.row.summarize()
		report.Rows = append(report.Rows, t.row)
	}
	report.Musts = report.check()
	return report, nil
}

// closedCPU and pacedCPU are what a push costs above what is spent without it.
func (row *PushRow) closedCPU() float64 { return row.Median.ClosedCPU - row.Idle/row.Median.PerSecond }

func (row *PushRow) pacedCPU(rate int) float64 { return row.Median.PacedCPU - row.Idle/float64(rate) }

func (row *PushRow) summarize() {
	of := func(field func(PushRound) float64) float64 {
		var figures []float64
		for _, r := range row.Rounds {
			figures = append(figures, field(r))
		}
		return median(figures)
	}
	row.Median = PushRound{
		PerSecond: of(func(r PushRound) float64 { return r.PerSecond }),
		ClosedCPU: of(func(r PushRound) float64 { return r.ClosedCPU }),
		Asks:      of(func(r PushRound) float64 { return r.Asks }),
		PacedCPU:  of(func(r PushRound) float64 { return r.PacedCPU }),
		OwnCPU:    of(func(r PushRound) float64 { return r.OwnCPU }),
		ClientP50: of(func(r PushRound) float64 { return r.ClientP50 }),
		ClientP99: of(func(r PushRound) float64 { return r.ClientP99 }),
		AnswerP50: of(func(r PushRound) float64 { return r.AnswerP50 }),
		AnswerP99: of(func(r PushRound) float64 { return r.AnswerP99 }),
	}
}

// pushTrial is one way with one number of backends, up for the whole benchmark. While another trial has its turn it is idle.
type pushTrial struct {
	cfg       PushConfig
	row       PushRow
	crowd     *crowd
	publisher publisher
	pids      []int    // of broker, bridge and backends, whose processor time counts with this process's
	cluster   *cluster // that is pushed to; nil for a flock
}

func (t *pushTrial) String() string {
	if t.row.Backends == 1 {
		return t.row.Way + ", 1 backend"
	}
	return fmt.Sprintf("%s, %d backends", t.row.Way, t.row.Backends)
}

// comeToRest waits until the home of a user answers for the user alone. For some time after members came or went it asks all
// others about each push, because sessions may still be with them.
func (t *pushTrial) comeToRest(ctx context.Context) error {
	if t.cfg.Settle == 0 || t.cluster == nil {
		return nil
	}
	const some = 200 // users, of all backends
	for deadline := time.Now().Add(t.cfg.Settle); ; {
		before, err := t.asks(ctx)
		if err != nil {
			return err
		}
		if err := t.reach(ctx, min(some, t.cfg.Users)); err != nil {
			return err
		}
		after, err := t.asks(ctx)
		if err != nil || after == before {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not at rest after %v: %.0f questions about %d pushes", t.cfg.Settle, after-before, some)
		}
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
}

// run is one round.
func (t *pushTrial) run(ctx context.Context) (r PushRound, err error) {
	if err := t.closed(ctx, &r); err != nil {
		return r, fmt.Errorf("closed loop: %w", err)
	}
	if err := t.paced(ctx, &r); err != nil {
		return r, fmt.Errorf("at %d pushes/s: %w", t.cfg.Rate, err)
	}
	return r, nil
}

// pushPhase is what a load has done.
type pushPhase struct {
	load   *pushLoad
	pushed int
	tally  Tally
	cpu    time.Duration
	own    time.Duration // of cpu, what this process used
	took   time.Duration // until the last message had come
}

// phase runs a load and sees that what it pushed, and nothing else, has come to the clients. What a broker has acknowledged is still on its
// way, so time and processor time count until then.
func (t *pushTrial) phase(ctx context.Context, run func(l *pushLoad) error) (p pushPhase, err error) {
	number, err := t.crowd.begin(ctx)
	if err != nil {
		return p, err
	}
	p.load = &pushLoad{publisher: t.publisher, phase: number, users: t.cfg.Users}
	start := time.Now()
	own, others, err := t.cpu()
	if err != nil {
		return p, err
	}
	if err := run(p.load); err != nil {
		return p, errors.Join(err, t.others(ctx))
	}
	p.pushed = int(p.load.pushed.Load())
	if err := t.crowd.arrival(ctx, p.pushed, arriveTimeout); err != nil {
		return p, err
	}
	ownAfter, othersAfter, err := t.cpu()
	if err != nil {
		return p, err
	}
	p.own, p.took = ownAfter-own, time.Since(start)
	p.cpu = p.own + othersAfter - others
	if p.tally, err = t.crowd.await(ctx, p.pushed, arriveTimeout); err != nil {
		return p, err
	}
	if p.tally.Open != t.cfg.Users {
		err = fmt.Errorf("%d of %d sessions are open", p.tally.Open, t.cfg.Users)
	}
	t.row.Pushes += p.pushed
	t.row.Messages += p.tally.Messages
	return p, err
}

// others is what clients and backends have to say to a failure that the publisher was told of.
func (t *pushTrial) others(ctx context.Context) error {
	seen, err := t.crowd.tally(ctx)
	said := []error{err, fmt.Errorf("clients: %d of %d sessions are open: %q", seen.Open, t.cfg.Users, seen.Problem)}
	if t.cluster != nil {
		for _, b := range t.cluster.backends {
			said = append(said, fmt.Errorf("%s: %s", b.id, b.tail()))
		}
	}
	return errors.Join(said...)
}

// cpu is what this process, and broker, bridge and backends have used.
func (t *pushTrial) cpu() (own, others time.Duration, err error) {
	if own, err = cpuTime(os.Getpid()); err != nil {
		return 0, 0, err
	}
	others, err = cpuOf(t.pids...)
	return own, others, err
}

// arriveTimeout is how long messages that are acknowledged may be on their way to the clients.
const arriveTimeout = 20 * time.Second

// reach pushes to each of the first n users once.
func (t *pushTrial) reach(ctx context.Context, n int) error {
	_, err := t.phase(ctx, func(l *pushLoad) error { return l.each(ctx, n) })
	return err
}

func (t *pushTrial) asks(ctx context.Context) (float64, error) {
	if t.cluster == nil {
		return 0, nil
	}
	return t.cluster.asks(ctx)
}

func (t *pushTrial) closed(ctx context.Context, r *PushRound) error {
	asked, err := t.asks(ctx)
	if err != nil {
		return err
	}
	p, err := t.phase(ctx, func(l *pushLoad) error { return l.closed(ctx, t.cfg.Closed) })
	if err != nil {
		return err
	}
	n := float64(p.pushed)
	r.PerSecond = n / p.took.Seconds()
	r.ClosedCPU = microseconds(p.cpu) / n
	asks, err := t.asks(ctx)
	r.Asks = (asks - asked) / n
	return err
}

func (t *pushTrial) paced(ctx context.Context, r *PushRound) error {
	p, err := t.phase(ctx, func(l *pushLoad) error { return l.paced(ctx, t.cfg.Paced, t.cfg.Rate) })
	if err != nil {
		return err
	}
	r.PacedCPU, r.OwnCPU = microseconds(p.cpu)/float64(p.pushed), microseconds(p.own)/float64(p.pushed)
	r.ClientP50, r.ClientP99 = microseconds(quantile(p.tally.Latencies, 0.5)), microseconds(quantile(p.tally.Latencies, 0.99))
	r.AnswerP50, r.AnswerP99 = microseconds(quantile(p.load.latencies, 0.5)), microseconds(quantile(p.load.latencies, 0.99))
	return nil
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
