package bench

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/selvedge/selvedge/backend/sender"
)

// PushConfig says how much [Push] does.
type PushConfig struct {
	Users    int           // online, one session each
	Backends []int         // numbers of backends that are compared
	Settle   time.Duration // how long the backends may take to come to rest before the rounds; 0: the rounds do not wait for it
	Rounds   int           // of each
	Closed   time.Duration // of the closed loop in a round
	Rate     int           // pushes per second at the fixed rate
	Paced    int           // pushes at the fixed rate in a round
}

// PushDefaults takes less than three minutes.
func PushDefaults() PushConfig {
	return PushConfig{Users: 4000, Backends: []int{1, 2, 4}, Settle: time.Minute, Rounds: 5, Closed: 2 * time.Second, Rate: 2000, Paced: 6000}
}

// PushShort takes seconds, and shows that everything works; its figures mean little.
func PushShort() PushConfig {
	return PushConfig{Users: 60, Backends: []int{1, 2}, Rounds: 1, Closed: 300 * time.Millisecond, Rate: 500, Paced: 150}
}

// PushReport is what [Push] found.
type PushReport struct {
	Kind    string     `json:"benchmark"`
	Machine Machine    `json:"machine"`
	Config  PushConfig `json:"config"`
	Rows    []PushRow  `json:"rows"`
	// Pacing is the processor time per push, in microseconds, that the load generator takes to start one at its time. It is part
	// of each PacedCPU.
	Pacing float64 `json:"cpu_us_pacing"`
}

// PushRow is a number of backends: medians over the rounds, and the sums of what was pushed.
type PushRow struct {
	Backends int         `json:"backends"`
	Median   PushRound   `json:"median"`
	Changed  PushRound   `json:"after_a_change"` // closed loop only, once, right after the members came together
	Pushes   int         `json:"pushes"`         // that the sender was told are delivered, over all rounds and phases
	Messages int         `json:"delivered"`      // that clients got, each once
	Rounds   []PushRound `json:"rounds"`
}

// PushRound is one round's figures. Processor time is that of the sender and of all backends together.
type PushRound struct {
	PerSecond float64 `json:"pushes_per_second"`    // closed loop
	ClosedCPU float64 `json:"cpu_us_closed"`        // microseconds per push, closed loop
	Asks      float64 `json:"asks_per_push"`        // questions that backends put to each other, closed loop
	PacedCPU  float64 `json:"cpu_us_paced"`         // microseconds per push at the fixed rate
	ClientP50 float64 `json:"client_p50_us"`        // from when a push was due until its client had it, at the fixed rate
	ClientP99 float64 `json:"client_p99_us"`        //
	AnswerP50 float64 `json:"sender_answer_p50_us"` // until the sender knew
	AnswerP99 float64 `json:"sender_answer_p99_us"` //
}

// Push measures what a push costs with several numbers of backends: a sender in this process, clients in another.
func Push(ctx context.Context, env Env, cfg PushConfig) (report *PushReport, err error) {
	report = &PushReport{Kind: "push", Machine: thisMachine(env), Config: cfg}
	pacing, err := pacingCost(cfg.Rate)
	if err != nil {
		return nil, err
	}
	report.Pacing = microseconds(pacing)
	var trials []*pushTrial
	defer func() {
		for _, t := range trials {
			t.end()
		}
	}()
	for _, n := range cfg.Backends {
		t, err := newPushTrial(ctx, env, cfg, n)
		if err != nil {
			return nil, fmt.Errorf("%d backends: %w", n, err)
		}
		trials = append(trials, t)
		if err := t.closed(ctx, &t.row.Changed); err != nil {
			return nil, fmt.Errorf("%d backends: %w", n, err)
		}
	}
	for _, t := range trials {
		if err := t.comeToRest(ctx); err != nil {
			return nil, fmt.Errorf("%d backends: %w", t.row.Backends, err)
		}
	}
	for round := range cfg.Rounds {
		for i := range trials {
			t := trials[(i+round)%len(trials)]
			r, err := t.run(ctx)
			if err != nil {
				return nil, fmt.Errorf("round %d with %d backends: %w", round+1, t.row.Backends, err)
			}
			t.row.Rounds = append(t.row.Rounds, r)
			env.Progress(fmt.Sprintf("round %d of %d, %d backends: %.0f pushes/s, %.1f us CPU and %.1f asks per push, %.0f us to the client",
				round+1, cfg.Rounds, t.row.Backends, r.PerSecond, r.ClosedCPU, r.Asks, r.ClientP50))
		}
	}
	for _, t := range trials {
		// A message that came late or again is in front of the next one in its session, and would show here.
		if err := t.reach(ctx, cfg.Users); err != nil {
			return nil, fmt.Errorf("after all rounds, %d backends: %w", t.row.Backends, err)
		}
		t.row.summarize()
		report.Rows = append(report.Rows, t.row)
	}
	return report, nil
}

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
		ClientP50: of(func(r PushRound) float64 { return r.ClientP50 }),
		ClientP99: of(func(r PushRound) float64 { return r.ClientP99 }),
		AnswerP50: of(func(r PushRound) float64 { return r.AnswerP50 }),
		AnswerP99: of(func(r PushRound) float64 { return r.AnswerP99 }),
	}
}

// pushTrial is one number of backends, up for the whole benchmark: they need half a minute to come to rest. While another
// trial has its turn they are idle.
type pushTrial struct {
	cfg     PushConfig
	cluster *cluster
	crowd   *crowd
	sender  *sender.Sender
	row     PushRow
}

// newPushTrial brings up n backends and connects every user to its own, without an edge: what edges cost is [Sessions]' matter.
func newPushTrial(ctx context.Context, env Env, cfg PushConfig, n int) (t *pushTrial, err error) {
	t = &pushTrial{cfg: cfg, row: PushRow{Backends: n}}
	defer func() {
		if err != nil {
			t.end()
		}
	}()
	if t.cluster, err = startCluster(ctx, env, n); err != nil {
		return t, err
	}
	if t.crowd, err = startCrowd(env, 1+(cfg.Users-1)/sessionsPerProcess(descriptorLimit())); err != nil {
		return t, err
	}
	t.sender, err = sender.New(sender.Config{Membership: sender.Membership{Registry: t.cluster.registry}})
	if err != nil {
		return t, err
	}
	err = t.crowd.open(ctx, 0, cfg.Users, "/ws", true, func(user int) string {
		owner, _ := t.sender.Owner(ctx, userName(user))
		return owner.Addr
	})
	if err != nil {
		return t, err
	}
	return t, t.reach(ctx, cfg.Users)
}

func (t *pushTrial) end() {
	if t.sender != nil {
		t.sender.Close()
	}
	if t.crowd != nil {
		t.crowd.kill()
	}
	if t.cluster != nil {
		t.cluster.kill()
	}
}

// comeToRest waits until the home of a user answers for the user alone. For some time after members came or went it asks all
// others about each push, because sessions may still be with them.
func (t *pushTrial) comeToRest(ctx context.Context) error {
	if t.cfg.Settle == 0 {
		return nil
	}
	const some = 200 // users, of all backends
	for deadline := time.Now().Add(t.cfg.Settle); ; {
		before, err := t.cluster.asks(ctx)
		if err != nil {
			return err
		}
		if err := t.reach(ctx, min(some, t.cfg.Users)); err != nil {
			return err
		}
		after, err := t.cluster.asks(ctx)
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

// phase runs a load and sees that what it pushed, and nothing else, has come to the clients.
func (t *pushTrial) phase(ctx context.Context, run func(l *pushLoad) error) (*pushLoad, Tally, error) {
	number, err := t.crowd.begin(ctx)
	if err != nil {
		return nil, Tally{}, err
	}
	load := &pushLoad{sender: t.sender, phase: number, users: t.cfg.Users}
	if err := run(load); err != nil {
		return load, Tally{}, err
	}
	tally, err := t.crowd.await(ctx, int(load.pushed.Load()), arriveTimeout)
	if err == nil && tally.Open != t.cfg.Users {
		err = fmt.Errorf("%d of %d sessions are open", tally.Open, t.cfg.Users)
	}
	t.row.Pushes += int(load.pushed.Load())
	t.row.Messages += tally.Messages
	return load, tally, err
}

// arriveTimeout is how long messages that are delivered may be on their way to the clients.
const arriveTimeout = 10 * time.Second

// reach pushes to each of the first n users once.
func (t *pushTrial) reach(ctx context.Context, n int) error {
	_, _, err := t.phase(ctx, func(l *pushLoad) error { return l.each(ctx, n) })
	return err
}

// cpu is what the sender, this process, and the backends have used.
func (t *pushTrial) cpu() (time.Duration, error) {
	return cpuOf(append(t.cluster.pids(), os.Getpid())...)
}

// spent runs f and returns the processor time that went into it.
func (t *pushTrial) spent(f func() error) (time.Duration, error) {
	before, err := t.cpu()
	if err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	after, err := t.cpu()
	return after - before, err
}

func (t *pushTrial) closed(ctx context.Context, r *PushRound) error {
	var cpu, took time.Duration
	asked, err := t.cluster.asks(ctx)
	if err != nil {
		return err
	}
	load, _, err := t.phase(ctx, func(l *pushLoad) (err error) {
		cpu, err = t.spent(func() error { took, err = l.closed(ctx, t.cfg.Closed); return err })
		return err
	})
	if err != nil {
		return err
	}
	n := float64(load.pushed.Load())
	r.PerSecond = n / took.Seconds()
	r.ClosedCPU = microseconds(cpu) / n
	asks, err := t.cluster.asks(ctx)
	r.Asks = (asks - asked) / n
	return err
}

func (t *pushTrial) paced(ctx context.Context, r *PushRound) error {
	var cpu time.Duration
	load, tally, err := t.phase(ctx, func(l *pushLoad) (err error) {
		cpu, err = t.spent(func() error { return l.paced(ctx, t.cfg.Paced, t.cfg.Rate) })
		return err
	})
	if err != nil {
		return err
	}
	r.PacedCPU = microseconds(cpu) / float64(load.pushed.Load())
	r.ClientP50, r.ClientP99 = microseconds(quantile(tally.Latencies, 0.5)), microseconds(quantile(tally.Latencies, 0.99))
	r.AnswerP50, r.AnswerP99 = microseconds(quantile(load.latencies, 0.5)), microseconds(quantile(load.latencies, 0.99))
	return nil
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
