package bench

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Table is figures in rows, for people.
type Table struct {
	Title   string
	Columns []string // the first names the rows
	Rows    [][]string
	Notes   []string
}

// WriteText writes t in columns: names to the left, figures to the right.
func (t *Table) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", t.Title)
	tab := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	wide := 0 // of the names, which the tabwriter would align to the right with all else
	for _, row := range append([][]string{t.Columns}, t.Rows...) {
		wide = max(wide, len(row[0]))
	}
	for _, row := range append([][]string{t.Columns}, t.Rows...) {
		fmt.Fprintf(tab, "%-*s\t%s\t\n", wide, row[0], strings.Join(row[1:], "\t"))
	}
	_ = tab.Flush() // a strings.Builder takes everything
	b.WriteByte('\n')
	for _, note := range t.Notes {
		fmt.Fprintf(&b, "%s\n", note)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Table shows the medians, and the span of the rounds for what depends on them most.
func (r *SessionsReport) Table() *Table {
	t := &Table{
		Title: fmt.Sprintf("%s idle WebSocket sessions behind each proxy; medians of %d interleaved rounds (least to most)",
			thousands(float64(r.Config.Sessions)), r.Config.Rounds),
		Columns: []string{"", "user-space bytes/session", "(span)", "proxy CPU us/upgrade", "(span)", "sessions echoed"},
	}
	for _, row := range r.Rows {
		t.Rows = append(t.Rows, []string{row.Name,
			thousands(row.Median.Bytes), span(row.Rounds, func(r SessionsRound) float64 { return r.Bytes }),
			thousands(row.Median.UpgradeCPU), span(row.Rounds, func(r SessionsRound) float64 { return r.UpgradeCPU }),
			thousands(row.Median.Echoed)})
		t.Notes = append(t.Notes, row.Name+": "+row.Version)
	}
	if x := r.Total; x != nil {
		t.Notes = append(t.Notes, fmt.Sprintf(
			"\nHeld at once: %s sessions (edges: %d, backends: %d, client processes: %d), opened in %.1f s; %s of them echoed.\n"+
				"Edges: %s user-space bytes per session, %s CPU us per upgrade. The kernel, for both connections of a session with all four ends: %s bytes.",
			thousands(float64(x.Held)), x.Edges, x.Backends, x.Clients, x.Seconds, thousands(float64(x.Echoed)),
			thousands(x.Bytes), thousands(x.UpgradeCPU), thousands(x.Kernel)))
	}
	t.Notes = append(t.Notes, r.Machine.String())
	return t
}

// Table shows the medians, the span of the rounds for the first figure, and what has been met.
func (r *PushReport) Table() *Table {
	rate := thousands(float64(r.Config.Rate)) + "/s"
	t := &Table{
		Title: fmt.Sprintf("Pushes to %s online users; medians of %d interleaved rounds (least to most); CPU of publisher, broker and backends together",
			thousands(float64(r.Config.Users)), r.Config.Rounds),
		Columns: []string{"", "backends", "pushes/s", "CPU us/push", "(span)", "asks/push", "CPU us/push at " + rate, "(span)", "idle us/s",
			"p50 us", "p99 us", "answer p50", "answer p99", "pushed", "delivered once"},
	}
	for _, row := range r.Rows {
		m := row.Median
		t.Rows = append(t.Rows, []string{row.Way, strconv.Itoa(row.Backends), thousands(m.PerSecond),
			thousands(m.ClosedCPU), span(row.Rounds, func(r PushRound) float64 { return r.ClosedCPU }), thousands(m.Asks),
			thousands(m.PacedCPU), span(row.Rounds, func(r PushRound) float64 { return r.PacedCPU }), thousands(row.Idle),
			thousands(m.ClientP50), thousands(m.ClientP99), thousands(m.AnswerP50), thousands(m.AnswerP99),
			thousands(float64(row.Pushes)), thousands(float64(row.Messages))})
		if c := row.Changed; c != nil {
			t.Notes = append(t.Notes, fmt.Sprintf("backends %d, right after they came together: %s pushes/s, %s CPU us and %s asks per push",
				row.Backends, thousands(c.PerSecond), thousands(c.ClosedCPU), thousands(c.Asks)))
		}
	}
	t.Notes = append(t.Notes,
		fmt.Sprintf("\npushes/s, CPU us/push, asks/push: closed loop, %d pushes at once; an ask is a question of one backend to another about a push.",
			closedWidth),
		"p50, p99: at "+rate+", from when a push was due until its client had it; answer: until the publisher was told (of a broker: that it has the message).",
		"CPU us/push at "+rate+" has "+thousands(r.Pacing)+" us in it that starting a push at its time takes by itself.",
		"idle us/s: CPU of broker and backends while nobody pushes. It is in the figures above, and not in those that follow nor in the plot.", "")
	for _, m := range r.Musts {
		t.Notes = append(t.Notes, m.String())
	}
	t.Notes = append(t.Notes, r.Versions...)
	t.Notes = append(t.Notes, r.Machine.String())
	return t
}

// span is the least and the most of a figure over the rounds.
func span[R any](rounds []R, figure func(R) float64) string {
	least, most := figure(rounds[0]), figure(rounds[0])
	for _, r := range rounds {
		least, most = min(least, figure(r)), max(most, figure(r))
	}
	return "(" + thousands(least) + "-" + thousands(most) + ")"
}

// thousands writes 1234567.8 as 1,234,568, and what is below 100 with one digit after the point.
func thousands(f float64) string {
	if f > -100 && f < 100 && f != float64(int(f)) {
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	s := strconv.FormatFloat(f, 'f', 0, 64)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
