package bench

import (
	"fmt"
	"slices"
)

// Must is what must be reached, beside others in the same rounds.
type Must struct {
	What    string  `json:"what"`
	Ours    float64 `json:"ours"`
	Most    float64 `json:"must_be_at_most"`
	Goal    float64 `json:"goal,omitempty"`
	Against string  `json:"against"` // what Most comes from
	Met     bool    `json:"met"`
	Reached bool    `json:"goal_reached"`
}

func (m Must) String() string {
	verdict := "NOT MET"
	switch {
	case m.Reached && m.Goal > 0:
		verdict = "MET, and the goal"
	case m.Met:
		verdict = "MET"
	}
	return fmt.Sprintf("%-17s  %s: %s, must be at most %s (%s)", verdict, m.What, thousands(m.Ours), thousands(m.Most), m.Against)
}

// check compares the medians.
func (r *ProxiesReport) check() []Must {
	of := func(name string) ProxyRound {
		for _, row := range r.Rows {
			if row.Name == name {
				return row.Median
			}
		}
		return ProxyRound{}
	}
	edge, nginx, haproxy, splice, direct := of(edgeName), of("nginx"), of("HAProxy"), of("HAProxy splice"), of("direct")
	excess := func(p ProxyRound) float64 { return p.Small.MachineCPU - direct.Small.MachineCPU }
	list := []struct {
		figure Figure
		beside []string // who must have taken part
		must   Must
	}{
		{FigureIdle, nil, Must{What: "user-space bytes per idle session", Ours: edge.Bytes, Most: 600, Goal: 256, Against: "fixed; goal 256"}},
		{FigureTLS, nil, Must{What: "user-space bytes per idle TLS session", Ours: edge.TLSBytes, Most: 19_000, Goal: 9_000, Against: "fixed; goal 9,000"}},
		{FigureTLS, []string{"nginx", "HAProxy"}, Must{What: "proxy CPU us per TLS upgrade", Ours: edge.TLSUpgradeCPU, Most: haproxy.TLSUpgradeCPU, Goal: nginx.TLSUpgradeCPU,
			Against: "HAProxy; goal nginx"}},
		{FigureSmall, []string{"nginx"}, Must{What: "machine CPU us per 128 B echo above direct", Ours: excess(edge), Most: 0.75 * excess(nginx), Goal: 0.5 * excess(nginx),
			Against: "0.75 x nginx; goal 0.5 x"}},
		{FigurePage, []string{"nginx"}, Must{What: "proxy CPU us per 4 KiB echo", Ours: edge.Page.ProxyCPU, Most: nginx.Page.ProxyCPU, Goal: 0.8 * nginx.Page.ProxyCPU,
			Against: "nginx; goal 0.8 x"}},
		{FigureStream, []string{"nginx", "HAProxy splice"}, Must{What: "proxy CPU s per GB", Ours: edge.Stream.ProxyCPU, Most: min(0.5*nginx.Stream.ProxyCPU, splice.Stream.ProxyCPU),
			Goal: 0.35 * nginx.Stream.ProxyCPU, Against: "0.5 x nginx, HAProxy with splice; goal 0.35 x nginx"}},
		{FigureIdle, []string{"HAProxy"}, Must{What: "proxy CPU us per upgrade", Ours: edge.UpgradeCPU, Most: 1.4 * haproxy.UpgradeCPU, Goal: haproxy.UpgradeCPU,
			Against: "1.4 x HAProxy; goal 1 x"}},
		{FigurePaced, []string{"nginx"}, Must{What: fmt.Sprintf("p50 us at %s/s", thousands(float64(r.Config.Rate))), Ours: edge.Paced.P50, Most: 1.15 * nginx.Paced.P50, Against: "1.15 x nginx"}},
		{FigurePaced, []string{"nginx"}, Must{What: fmt.Sprintf("p99 us at %s/s", thousands(float64(r.Config.Rate))), Ours: edge.Paced.P99, Most: 1.15 * nginx.Paced.P99, Against: "1.15 x nginx"}},
	}
	missing := func(name string) bool {
		return !slices.ContainsFunc(r.Rows, func(row ProxyRow) bool { return row.Name == name })
	}
	var musts []Must
	for _, l := range list {
		if !r.Config.measures(l.figure) || slices.ContainsFunc(l.beside, missing) {
			continue
		}
		m := l.must
		m.Met = m.Ours <= m.Most
		m.Reached = m.Met && m.Ours <= m.Goal
		musts = append(musts, m)
	}
	return musts
}

func (r *ProxiesReport) name() string { return r.Kind }

// Table shows the medians, and what has been met.
func (r *ProxiesReport) Table() *Table {
	t := &Table{
		Title: fmt.Sprintf("Proxies side by side: medians of %d interleaved rounds; %d idle sessions (%d with TLS), %d busy ones",
			r.Config.Rounds, r.Config.Idle, r.Config.IdleTLS, r.Config.Busy),
		Columns: []string{"", "bytes/session", "us/upgrade", "TLS bytes", "TLS us/upgrade",
			"128 B us", "machine", "p50", "p99", "p99.9",
			"at " + thousands(float64(r.Config.Rate)) + "/s us", "machine", "p50", "p99", "p99.9",
			"4 KiB us", "machine", "p50", "p99", "p99.9", "s/GB", "machine", "GB/s"},
	}
	for _, row := range r.Rows {
		m := row.Median
		cells := []string{row.Name}
		for _, f := range []float64{m.Bytes, m.UpgradeCPU, m.TLSBytes, m.TLSUpgradeCPU} {
			cells = append(cells, figure(f))
		}
		for _, l := range []LoadRound{m.Small, m.Paced, m.Page} {
			cells = append(cells, figure(l.ProxyCPU), figure(l.MachineCPU), figure(l.P50), figure(l.P99), figure(l.P999))
		}
		s := m.Stream
		cells = append(cells, fmt.Sprintf("%.2f", s.ProxyCPU), fmt.Sprintf("%.2f", s.MachineCPU), fmt.Sprintf("%.2f", s.PerSecond))
		t.Rows = append(t.Rows, cells)
		t.Notes = append(t.Notes, row.Name+": "+row.Version)
	}
	t.Notes = append(t.Notes,
		"\nus: processor time of the proxy per upgrade or message; machine: of proxy, clients and far end together; p50, p99, p99.9: us, as the",
		"clients saw it, at the fixed rate from when a message was due. bytes: growth of the PSS per session. s/GB: processor time per GB streamed.")
	for _, row := range r.Rows {
		if row.Name == edgeName && row.Median.Paced.Others > calm {
			t.Notes = append(t.Notes, fmt.Sprintf("Other processes took %.0f %% of the processors while the edge was at the fixed rate: its p99 tells of them.",
				row.Median.Paced.Others*100))
		}
	}
	if r.Skipped != "" {
		t.Notes = append(t.Notes, r.Skipped)
	}
	t.Notes = append(t.Notes, "")
	for _, m := range r.Musts {
		t.Notes = append(t.Notes, m.String())
	}
	t.Notes = append(t.Notes, "", r.Machine.String())
	return t
}

// figure is a figure, or nothing where nothing was measured.
func figure(f float64) string {
	if f == 0 {
		return "-"
	}
	return thousands(f)
}

// plot draws the processor time of a message.
func (r *ProxiesReport) plot() plot {
	p := plot{title: "Processor time of the proxy per echo of 128 bytes", unit: "microseconds, closed loop", bars: true}
	small := series{name: "128 B"}
	for _, row := range r.Rows {
		if row.Name == "direct" {
			continue
		}
		p.places = append(p.places, row.Name)
		small.figures = append(small.figures, row.Median.Small.ProxyCPU)
	}
	p.series = []series{small}
	return p
}
