package bench

import (
	"context"
	"fmt"
	"time"
)

// SessionsConfig says how much [Sessions] does.
type SessionsConfig struct {
	Sessions int // on each proxy in each round; less where the descriptor limit asks for it
	Rounds   int
	Total    int // sessions that are held at once in the end, over as many edges as they need; 0: that part is left out
	PerEdge  int // most sessions on one edge in that part; 0: what the descriptor limit has room for
}

// SessionsDefaults takes less than three minutes.
func SessionsDefaults() SessionsConfig {
	return SessionsConfig{Sessions: 4000, Rounds: 5, Total: 60_000}
}

// SessionsShort takes seconds, and shows that everything works; its figures mean little.
func SessionsShort() SessionsConfig {
	return SessionsConfig{Sessions: 150, Rounds: 1, Total: 300, PerEdge: 150}
}

const (
	warmUpSessions = 200              // at once, opened and closed before a round: code and buffers that all sessions share are there then
	warmUpTimes    = 6                // over: so many upgrades make the edge tidy up, as it does after the round
	settleTimeout  = 5 * time.Second  // for memory to come to rest
	echoTimeout    = 60 * time.Second // for all sessions to have their answer
)

// SessionsReport is what [Sessions] found.
type SessionsReport struct {
	Kind    string         `json:"benchmark"`
	Machine Machine        `json:"machine"`
	Config  SessionsConfig `json:"config"`
	Rows    []SessionsRow  `json:"rows"`
	Total   *TotalRow      `json:"total,omitempty"`
}

// SessionsRow is a proxy: medians over the rounds.
type SessionsRow struct {
	contender
	Median SessionsRound   `json:"median"`
	Rounds []SessionsRound `json:"rounds"`
}

// SessionsRound is one round's figures of a proxy.
type SessionsRound struct {
	Bytes      float64 `json:"user_bytes_per_session"` // growth of the PSS per idle session
	UpgradeCPU float64 `json:"cpu_us_per_upgrade"`     // processor time of the proxy, microseconds
	Echoed     float64 `json:"sessions_echoed"`
}

// TotalRow is the sessions held at once.
type TotalRow struct {
	Held       int     `json:"sessions_held"`
	Echoed     int     `json:"sessions_echoed"`
	Edges      int     `json:"edges"`
	Backends   int     `json:"backends"`
	Clients    int     `json:"client_processes"`
	Bytes      float64 `json:"user_bytes_per_session"`   // of the edges
	Kernel     float64 `json:"kernel_bytes_per_session"` // of the whole machine, for both connections of a session, all four ends
	UpgradeCPU float64 `json:"cpu_us_per_upgrade"`       // of the edges
	Seconds    float64 `json:"seconds_to_open"`
}

// Sessions measures what a session costs behind each proxy, and then how many are held at once.
func Sessions(ctx context.Context, env Env, cfg SessionsConfig) (*SessionsReport, error) {
	list, err := contenders(env)
	if err != nil {
		return nil, err
	}
	limit := descriptorLimit()
	cfg.Sessions = min(cfg.Sessions, sessionsPerProxy(limit))
	if cfg.PerEdge == 0 {
		cfg.PerEdge = sessionsPerProxy(limit)
	}
	report := &SessionsReport{Kind: "sessions", Machine: thisMachine(env), Config: cfg}
	for _, c := range list {
		report.Rows = append(report.Rows, SessionsRow{contender: c})
	}
	for round := range cfg.Rounds {
		for i := range report.Rows {
			row := &report.Rows[(i+round)%len(report.Rows)]
			r, err := row.run(ctx, env, cfg)
			if err != nil {
				return nil, fmt.Errorf("round %d of %s: %w", round+1, row.Name, err)
			}
			row.Rounds = append(row.Rounds, r)
			env.Progress(fmt.Sprintf("round %d of %d, %s: %.0f bytes per session, %.0f us CPU per upgrade",
				round+1, cfg.Rounds, row.Name, r.Bytes, r.UpgradeCPU))
		}
	}
	for i := range report.Rows {
		report.Rows[i].summarize()
	}
	if cfg.Total > 0 {
		if report.Total, err = holdTotal(ctx, env, cfg); err != nil {
			return nil, fmt.Errorf("%d sessions at once: %w", cfg.Total, err)
		}
	}
	return report, nil
}

func (row *SessionsRow) summarize() {
	of := func(field func(SessionsRound) float64) float64 {
		var figures []float64
		for _, r := range row.Rounds {
			figures = append(figures, field(r))
		}
		return median(figures)
	}
	row.Median = SessionsRound{
		Bytes:      of(func(r SessionsRound) float64 { return r.Bytes }),
		UpgradeCPU: of(func(r SessionsRound) float64 { return r.UpgradeCPU }),
		Echoed:     of(func(r SessionsRound) float64 { return r.Echoed }),
	}
}

// run is one round of one proxy: a backend, the proxy and clients that nobody used before.
func (row *SessionsRow) run(ctx context.Context, env Env, cfg SessionsConfig) (SessionsRound, error) {
	var r SessionsRound
	cluster, err := startCluster(ctx, env, 1)
	if err != nil {
		return r, err
	}
	defer cluster.kill()
	proxy, addr, err := row.start(ctx, cluster)
	if err != nil {
		return r, err
	}
	defer proxy.kill()
	clients, err := startCrowd(env, 1)
	if err != nil {
		return r, err
	}
	defer clients.kill()

	at := func(int) string { return addr }
	if err := warmUp(ctx, clients, min(warmUpSessions, cfg.Sessions), at); err != nil {
		return r, fmt.Errorf("%w\n%s", err, proxy.tail())
	}
	before, err := settled(ctx, settleTimeout, proxy.pid())
	if err != nil {
		return r, err
	}
	if err := clients.open(ctx, 0, cfg.Sessions, "/echo", false, at); err != nil {
		return r, fmt.Errorf("%w\n%s", err, proxy.tail())
	}
	after, err := settled(ctx, settleTimeout, proxy.pid())
	if err != nil {
		return r, err
	}
	echoed, err := echoAll(ctx, clients, cfg.Sessions)
	r = SessionsRound{
		Bytes:      float64(after.pss-before.pss) / float64(cfg.Sessions),
		UpgradeCPU: microseconds(after.cpu-before.cpu) / float64(cfg.Sessions),
		Echoed:     float64(echoed),
	}
	return r, err
}

// warmUp opens n sessions, sees that they work, and closes them, several times.
func warmUp(ctx context.Context, clients *crowd, n int, at func(user int) string) error {
	for range warmUpTimes {
		err := clients.open(ctx, 0, n, "/echo", false, at)
		if err == nil {
			_, err = echoAll(ctx, clients, n)
		}
		if err != nil {
			return fmt.Errorf("warm-up: %w", err)
		}
		if err := clients.closeAll(ctx); err != nil {
			return err
		}
	}
	return nil
}

// echoAll has each of n sessions send a message and get it back.
func echoAll(ctx context.Context, clients *crowd, n int) (int, error) {
	tally, err := clients.echo(ctx, n, echoTimeout)
	if err == nil && tally.Open != n {
		err = fmt.Errorf("%d of %d sessions are open", tally.Open, n)
	}
	return tally.Messages, err
}

// holdTotal holds cfg.Total sessions at once, over several edges, backends and client processes.
func holdTotal(ctx context.Context, env Env, cfg SessionsConfig) (*TotalRow, error) {
	perProcess := min(sessionsPerProcess(descriptorLimit()), 2*cfg.PerEdge)
	row := &TotalRow{
		Edges:    1 + (cfg.Total-1)/cfg.PerEdge,
		Backends: 1 + (cfg.Total-1)/perProcess,
		Clients:  1 + (cfg.Total-1)/perProcess,
	}
	cluster, err := startCluster(ctx, env, row.Backends)
	if err != nil {
		return nil, err
	}
	defer cluster.kill()
	var edges []int
	for range row.Edges {
		e, err := cluster.addEdge(ctx)
		if err != nil {
			return nil, err
		}
		edges = append(edges, e.pid())
	}
	clients, err := startCrowd(env, row.Clients)
	if err != nil {
		return nil, err
	}
	defer clients.kill()

	// Users come to the edges in blocks, and to the client processes in turn: each process connects to every edge.
	at := func(user int) string { return cluster.edges[min(user/cfg.PerEdge, row.Edges-1)].addr }
	inTurn := func(user int) string { return cluster.edges[user%row.Edges].addr }
	if err := warmUp(ctx, clients, min(warmUpSessions*row.Edges, cfg.Total), inTurn); err != nil {
		return nil, err
	}
	before, err := settled(ctx, settleTimeout, edges...)
	if err != nil {
		return nil, err
	}
	kernelBefore, err := kernelBytes()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := clients.open(ctx, 0, cfg.Total, "/echo", false, at); err != nil {
		return nil, err
	}
	row.Seconds = time.Since(start).Seconds()
	env.Progress(fmt.Sprintf("%d sessions are open at %d edges", cfg.Total, row.Edges))
	after, err := settled(ctx, settleTimeout, edges...)
	if err != nil {
		return nil, err
	}
	kernelAfter, err := kernelBytes()
	if err != nil {
		return nil, err
	}
	row.Kernel = float64(kernelAfter-kernelBefore) / float64(cfg.Total)
	if row.Echoed, err = echoAll(ctx, clients, cfg.Total); err != nil {
		return nil, err
	}
	row.Held = cfg.Total // echoAll saw them open
	row.Bytes = float64(after.pss-before.pss) / float64(cfg.Total)
	row.UpgradeCPU = microseconds(after.cpu-before.cpu) / float64(cfg.Total)
	return row, nil
}
