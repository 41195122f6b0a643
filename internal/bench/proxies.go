package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"time"
)

// ProxiesConfig says how much [Proxies] does.
type ProxiesConfig struct {
	Rounds   int
	Idle     int           // sessions held idle, plain
	IdleTLS  int           // the same with TLS
	Busy     int           // sessions of a load
	Closed   time.Duration // of a closed loop
	Rate     int           // messages a second, of the fixed rate
	Paced    int           // messages at that
	Stream   int64         // bytes
	CaddyDir string        // of the module that builds Caddy; "": without

	Only   []Figure `json:",omitempty"` // what is measured; empty: everything
	Beside []string `json:",omitempty"` // contenders beside the edge and the direct connection, by name; empty: all
}

// Figure is a part of what [Proxies] measures of a contender.
type Figure string

// In the order in which they are measured.
const (
	FigureIdle   Figure = "idle" // bytes per session and processor time per upgrade
	FigureSmall  Figure = "small"
	FigurePaced  Figure = "paced"
	FigurePage   Figure = "page"
	FigureStream Figure = "stream"
	FigureTLS    Figure = "tls" // as idle
)

// Figures are all of them.
var Figures = []Figure{FigureIdle, FigureSmall, FigurePaced, FigurePage, FigureStream, FigureTLS}

func (c *ProxiesConfig) measures(f Figure) bool {
	return len(c.Only) == 0 || slices.Contains(c.Only, f)
}

// ProxiesDefaults takes some ten minutes.
func ProxiesDefaults() ProxiesConfig {
	return ProxiesConfig{Rounds: 7, Idle: 3000, IdleTLS: 1200, Busy: 64, Closed: 700 * time.Millisecond, Rate: 5000, Paced: 5000, Stream: 512 << 20,
		CaddyDir: filepath.Join("internal", "bench", "caddy")}
}

// ProxiesShort takes seconds, and shows that everything works; its figures mean little.
func ProxiesShort() ProxiesConfig {
	return ProxiesConfig{Rounds: 1, Idle: 100, IdleTLS: 20, Busy: 8, Closed: 50 * time.Millisecond, Rate: 1000, Paced: 100, Stream: 16 << 20}
}

// ProxiesReport is what [Proxies] found.
type ProxiesReport struct {
	Kind    string        `json:"benchmark"`
	Machine Machine       `json:"machine"`
	Config  ProxiesConfig `json:"config"`
	Rows    []ProxyRow    `json:"rows"`
	Musts   []Must        `json:"musts"`
	Skipped string        `json:"skipped,omitempty"` // contenders that could not take part, and why
}

// ProxyRow is a contender: medians over the rounds.
type ProxyRow struct {
	contender
	Median ProxyRound   `json:"median"`
	Rounds []ProxyRound `json:"rounds"`
}

// ProxyRound is one round's figures of a contender. Processor time of the machine is that of the proxy, the clients and the far end
// together.
type ProxyRound struct {
	Bytes      float64 `json:"user_bytes_per_session"` // growth of the PSS per idle session
	UpgradeCPU float64 `json:"cpu_us_per_upgrade"`     // of the proxy, microseconds

	TLSBytes      float64 `json:"user_bytes_per_tls_session,omitempty"`
	TLSUpgradeCPU float64 `json:"cpu_us_per_tls_upgrade,omitempty"` // full handshake, P-256

	Small  LoadRound `json:"closed_128_bytes"`
	Paced  LoadRound `json:"paced_128_bytes"`
	Page   LoadRound `json:"closed_4_kib"`
	Stream LoadRound `json:"stream"` // per GB, in seconds
}

// LoadRound is what one load took, per message.
type LoadRound struct {
	ProxyCPU   float64 `json:"proxy_cpu_us"`
	MachineCPU float64 `json:"machine_cpu_us"`
	P50        float64 `json:"p50_us,omitempty"` // as the clients saw it; at a rate from when a message was due
	P99        float64 `json:"p99_us,omitempty"`
	P999       float64 `json:"p999_us,omitempty"`
	Others     float64 `json:"others"`     // share of the machine's processor time that went to none of these processes, 0 to 1
	PerSecond  float64 `json:"per_second"` // messages, or GB
}

// Proxies measures the edge beside other proxies and beside a direct connection: memory, processor time and latency.
func Proxies(ctx context.Context, env Env, cfg ProxiesConfig) (*ProxiesReport, error) {
	report := &ProxiesReport{Kind: "proxies", Machine: thisMachine(env), Config: cfg}
	list, err := contenders(env)
	if err != nil {
		return nil, err
	}
	list = append([]contender{{Name: "direct", Version: "no proxy", start: startNothing}}, list...)
	more, skipped, err := moreContenders(ctx, env, cfg)
	if err != nil {
		return nil, err
	}
	report.Skipped = skipped
	for _, c := range append(list, more...) {
		if always := c.Name == "direct" || c.Name == edgeName; always || len(cfg.Beside) == 0 || slices.Contains(cfg.Beside, c.Name) {
			report.Rows = append(report.Rows, ProxyRow{contender: c})
		}
	}
	for _, name := range cfg.Beside {
		if !slices.ContainsFunc(report.Rows, func(row ProxyRow) bool { return row.Name == name }) {
			return nil, fmt.Errorf("no proxy %q takes part", name)
		}
	}
	for round := range cfg.Rounds {
		for i := range report.Rows {
			row := &report.Rows[(i+round)%len(report.Rows)]
			r, err := row.run(ctx, env, cfg)
			if err != nil {
				return nil, fmt.Errorf("round %d of %s: %w", round+1, row.Name, err)
			}
			row.Rounds = append(row.Rounds, r)
			env.Progress(fmt.Sprintf("round %d of %d, %s: %.0f bytes, %.0f us CPU per upgrade (TLS %.0f); 128 B: %.1f us CPU, machine %.1f; 4 KiB: %.1f; %.2f s/GB; "+
				"p50 %.0f us, p99 %.0f, CPU %.1f us, others %.0f %%", round+1, cfg.Rounds, row.Name, r.Bytes, r.UpgradeCPU, r.TLSUpgradeCPU, r.Small.ProxyCPU, r.Small.MachineCPU,
				r.Page.ProxyCPU, r.Stream.ProxyCPU, r.Paced.P50, r.Paced.P99, r.Paced.ProxyCPU, r.Paced.Others*100))
		}
	}
	for i := range report.Rows {
		report.Rows[i].summarize()
	}
	report.Musts = report.check()
	return report, nil
}

func (row *ProxyRow) summarize() {
	of := func(field func(*ProxyRound) *float64) {
		var figures []float64
		for i := range row.Rounds {
			figures = append(figures, *field(&row.Rounds[i]))
		}
		*field(&row.Median) = median(figures)
	}
	of(func(r *ProxyRound) *float64 { return &r.Bytes })
	of(func(r *ProxyRound) *float64 { return &r.UpgradeCPU })
	of(func(r *ProxyRound) *float64 { return &r.TLSBytes })
	of(func(r *ProxyRound) *float64 { return &r.TLSUpgradeCPU })
	for _, load := range []func(*ProxyRound) *LoadRound{
		func(r *ProxyRound) *LoadRound { return &r.Small },
		func(r *ProxyRound) *LoadRound { return &r.Paced },
		func(r *ProxyRound) *LoadRound { return &r.Page },
		func(r *ProxyRound) *LoadRound { return &r.Stream },
	} {
		of(func(r *ProxyRound) *float64 { return &load(r).ProxyCPU })
		of(func(r *ProxyRound) *float64 { return &load(r).MachineCPU })
		of(func(r *ProxyRound) *float64 { return &load(r).P50 })
		of(func(r *ProxyRound) *float64 { return &load(r).P99 })
		of(func(r *ProxyRound) *float64 { return &load(r).P999 })
		of(func(r *ProxyRound) *float64 { return &load(r).PerSecond })
		of(func(r *ProxyRound) *float64 { return &load(r).Others })
	}
}

// proxyTrial is one round of one contender.
type proxyTrial struct {
	cfg     ProxiesConfig
	env     Env
	cluster *cluster // with one far end as its backend
	clients *crowd   // one process
	proxy   *process // nil: none
	addr    string
}

func (row *ProxyRow) run(ctx context.Context, env Env, cfg ProxiesConfig) (r ProxyRound, err error) {
	t := &proxyTrial{cfg: cfg, env: env}
	defer t.end()
	if t.cluster, err = startFarEnd(ctx, env); err != nil {
		return r, err
	}
	if t.clients, err = startCrowd(env, 1); err != nil {
		return r, err
	}
	if t.proxy, t.addr, err = row.start(ctx, t.cluster); err != nil {
		return r, err
	}
	err = t.measure(ctx, &r)
	if err == nil && row.startTLS != nil && cfg.measures(FigureTLS) {
		t.proxy.kill()
		if t.proxy, t.addr, err = row.startTLS(ctx, t.cluster); err == nil {
			r.TLSBytes, r.TLSUpgradeCPU, err = t.hold(ctx, cfg.IdleTLS, true)
		}
	}
	if err != nil && t.proxy != nil {
		err = fmt.Errorf("%w\n%s", err, t.proxy.tail())
	}
	return r, err
}

func (t *proxyTrial) end() {
	t.proxy.kill()
	if t.clients != nil {
		t.clients.kill()
	}
	if t.cluster != nil {
		t.cluster.kill()
	}
}

func (t *proxyTrial) measure(ctx context.Context, r *ProxyRound) (err error) {
	if t.cfg.measures(FigureIdle) {
		r.Bytes, r.UpgradeCPU, err = t.hold(ctx, t.cfg.Idle, false)
	} else if err = t.warmUp(ctx, warmUpSessions, false); err == nil {
		_, err = t.settled(ctx) // what that left behind is put in order before the loads
	}
	if err != nil {
		return err
	}
	n := t.cfg.Busy
	busy := LoadArgs{First: 0, Last: n}
	if err := t.open(ctx, RawArgs{Path: "/echo", Last: n}); err != nil {
		return err
	}
	if err := t.open(ctx, RawArgs{Path: "/stream", Last: 1}); err != nil {
		return err
	}
	small, paced, page := busy, busy, busy
	small.Size, small.For = 128, t.cfg.Closed
	paced.Size, paced.Rate, paced.Messages = 128, t.cfg.Rate, t.cfg.Paced
	page.Size, page.For = 4096, t.cfg.Closed
	for _, load := range []struct {
		figure Figure
		into   *LoadRound
		args   LoadArgs
	}{
		{FigureSmall, &r.Small, small}, {FigurePaced, &r.Paced, paced}, {FigurePage, &r.Page, page},
		{FigureStream, &r.Stream, LoadArgs{First: n, Last: n + 1, Stream: uint64(t.cfg.Stream)}},
	} {
		if !t.cfg.measures(load.figure) {
			continue
		}
		if *load.into, err = t.load(ctx, load.args); err != nil {
			return err
		}
		for range calmTries {
			if load.args.Rate == 0 || load.into.Others <= calm {
				break
			}
			again, err := t.load(ctx, load.args)
			if err != nil {
				return err
			}
			if again.Others < load.into.Others {
				*load.into = again
			}
		}
	}
	return callAll(ctx, t.clients, "CloseRaw", 0)
}

func (t *proxyTrial) open(ctx context.Context, args RawArgs) error {
	args.Addr = t.addr
	return callAll(ctx, t.clients, "OpenRaw", args)
}

// warmUp opens n sessions and closes them, some times: it brings in what all share.
func (t *proxyTrial) warmUp(ctx context.Context, n int, secure bool) error {
	for range warmUpTimes {
		if err := t.open(ctx, RawArgs{Path: "/echo", Last: n, TLS: secure}); err != nil {
			return fmt.Errorf("warm-up: %w", err)
		}
		if err := callAll(ctx, t.clients, "CloseRaw", 0); err != nil {
			return err
		}
	}
	return nil
}

// hold opens n sessions and leaves them idle: what the proxy's memory grows by for each, and what an upgrade takes. Then they are closed.
func (t *proxyTrial) hold(ctx context.Context, n int, secure bool) (bytes, upgrade float64, err error) {
	if err := t.warmUp(ctx, min(warmUpSessions, n), secure); err != nil {
		return 0, 0, err
	}
	before, err := t.settled(ctx)
	if err != nil {
		return 0, 0, err
	}
	if err := t.open(ctx, RawArgs{Path: "/echo", Last: n, TLS: secure}); err != nil {
		return 0, 0, err
	}
	after, err := t.settled(ctx)
	if err != nil {
		return 0, 0, err
	}
	if !secure { // each is there, and echoes
		if _, err := t.load(ctx, LoadArgs{Last: n, Size: 128}); err != nil {
			return 0, 0, err
		}
	}
	return float64(after.pss-before.pss) / float64(n), microseconds(after.cpu-before.cpu) / float64(n), callAll(ctx, t.clients, "CloseRaw", 0)
}

func (t *proxyTrial) settled(ctx context.Context) (usage, error) {
	if t.proxy == nil {
		return usage{}, nil
	}
	return settled(ctx, settleTimeout, t.proxy.pid())
}

// cpu is what the proxy and what all together have used.
func (t *proxyTrial) cpu() (proxy, all time.Duration, err error) {
	if t.proxy != nil {
		tree, err := withChildren([]int{t.proxy.pid()})
		if err != nil {
			return 0, 0, err
		}
		if proxy, err = cpuOf(tree...); err != nil {
			return 0, 0, err
		}
	}
	others, err := cpuOf(t.cluster.backends[0].pid(), t.clients.processes[0].pid())
	return proxy, proxy + others, err
}

// What latency there is at a fixed rate is to be the proxy's, not that of others who want the same processors. So a load during which they
// took more than calm of them is taken again, and the calmest counts, for every contender alike.
const (
	calm      = 0.03
	calmTries = 4
)

func (t *proxyTrial) load(ctx context.Context, args LoadArgs) (r LoadRound, err error) {
	began := time.Now()
	machineBefore, err := machineTime()
	if err != nil {
		return r, err
	}
	proxyBefore, allBefore, err := t.cpu()
	if err != nil {
		return r, err
	}
	replies, err := call[LoadArgs, LoadReply](ctx, t.clients, "Load", func(int) LoadArgs { return args })
	if err != nil {
		return r, err
	}
	proxyAfter, allAfter, err := t.cpu()
	if err != nil {
		return r, err
	}
	machineAfter, err := machineTime()
	if err != nil {
		return r, err
	}
	got := replies[0]
	if got.Problem != "" {
		return r, fmt.Errorf("%+v: %s", args, got.Problem)
	}
	units := float64(got.Messages)
	if args.Stream > 0 {
		units = float64(args.Stream) / 1e9 * 1e6 // microseconds become seconds per GB
	}
	r = LoadRound{
		ProxyCPU: microseconds(proxyAfter-proxyBefore) / units, MachineCPU: microseconds(allAfter-allBefore) / units,
		P50: microseconds(got.P50), P99: microseconds(got.P99), P999: microseconds(got.P999), PerSecond: units / got.Took.Seconds(),
	}
	if args.Stream > 0 {
		r.PerSecond /= 1e6
	}
	all := time.Since(began) * time.Duration(runtime.NumCPU())
	r.Others = max(0, float64(machineAfter-machineBefore-(allAfter-allBefore))/float64(all))
	return r, nil
}

// startFarEnd makes a cluster of one far end.
func startFarEnd(ctx context.Context, env Env) (c *cluster, err error) {
	dir, err := os.MkdirTemp("", "selvedge-bench-")
	if err != nil {
		return nil, err
	}
	c = &cluster{env: env, dir: dir, registry: filepath.Join(dir, "registry.yaml")}
	defer func() {
		if err != nil {
			c.kill()
		}
	}()
	p, err := startProcess("far end", exec.Command(env.Self, roleFarEnd), farEndUp)
	if err != nil {
		return c, err
	}
	c.backends = []*member{{process: p, id: "b1"}}
	entry, err := p.up(ctx)
	if err != nil {
		return c, err
	}
	c.backends[0].addr = entry.text("addr")
	return c, c.publish(fmt.Sprintf("services:\n  default:\n  - {id: b1, addr: %q}\n", c.backends[0].addr))
}

func startNothing(_ context.Context, c *cluster) (*process, string, error) {
	return nil, c.backends[0].addr, nil
}
