package bench_test

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/selvedge/selvedge/internal/bench"
)

// The test binary is the client process too, when a benchmark starts it as one.
func TestMain(m *testing.M) {
	if is, err := bench.Role(os.Args[1:]); is {
		if err != nil {
			panic(err)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) { os.Exit(code) }), goleak.IgnoreCurrent())
}

// binary is the program under test, built once.
var binary = sync.OnceValues(func() (string, error) {
	path, err := filepath.Abs("../../bin/selvedge")
	if err != nil {
		return "", err
	}
	out, err := exec.Command("make", "-C", "../..", "build").CombinedOutput()
	if err != nil {
		return "", errors.New("make build: " + err.Error() + "\n" + string(out))
	}
	return path, nil
})

func env(t *testing.T) bench.Env {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return bench.Env{Binary: path, Self: os.Args[0], Progress: func(line string) { t.Log(line) }}
}

func TestSessionsShort(t *testing.T) {
	e := env(t)
	start := time.Now()
	report, err := bench.Sessions(t.Context(), e, bench.SessionsShort())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("took %v", time.Since(start))
	cfg := report.Config
	if len(report.Rows) != 3 {
		t.Fatalf("%d proxies; want the edge, nginx and HAProxy", len(report.Rows))
	}
	for _, row := range report.Rows {
		m := row.Median
		if m.UpgradeCPU <= 0 || m.UpgradeCPU > 100_000 || m.Echoed != float64(cfg.Sessions) || len(row.Rounds) != cfg.Rounds {
			t.Errorf("%s: %+v", row.Name, m)
		}
		// Of few sessions the edge's memory is lost in what its heap grows and shrinks by; the others' is not.
		if row.Name == "nginx" && (m.Bytes < 1_000 || m.Bytes > 100_000) {
			t.Errorf("%s: %.0f bytes per session", row.Name, m.Bytes)
		}
		if !strings.ContainsAny(row.Version, "0123456789abcdef") {
			t.Errorf("%s has version %q", row.Name, row.Version)
		}
	}
	if x := report.Total; x.Held != cfg.Total || x.Echoed != cfg.Total || x.Edges < 2 || x.Seconds <= 0 || x.UpgradeCPU <= 0 {
		t.Errorf("held at once: %+v", x)
	}
	checkOutput(t, report, "sessions", "selvedge edge", "nginx", "HAProxy", "Held at once: 300 sessions")
}

func TestProxiesShort(t *testing.T) {
	e := env(t)
	start := time.Now()
	report, err := bench.Proxies(t.Context(), e, bench.ProxiesShort())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("took %v", time.Since(start))
	for _, row := range report.Rows {
		for name, l := range map[string]bench.LoadRound{"small": row.Median.Small, "paced": row.Median.Paced, "page": row.Median.Page} {
			if l.MachineCPU <= l.ProxyCPU || l.P50 <= 0 || l.P99 < l.P50 || l.PerSecond <= 0 || (l.ProxyCPU > 0) != (row.Name != "direct") {
				t.Errorf("%s, %s: %+v", row.Name, name, l)
			}
		}
		secure := row.Name == "selvedge edge" || row.Name == "nginx" || row.Name == "HAProxy"
		if s := row.Median.Stream; s.MachineCPU <= 0 || s.PerSecond <= 0 || (row.Median.TLSUpgradeCPU > 0) != secure {
			t.Errorf("%s: %+v", row.Name, row.Median)
		}
	}
	if len(report.Rows) != 6 || len(report.Musts) != 9 {
		t.Errorf("%d contenders, %d musts", len(report.Rows), len(report.Musts))
	}
	checkOutput(t, report, "proxies", "selvedge edge", "HAProxy splice", "direct", "MET")
}

func TestPushShort(t *testing.T) {
	e := env(t)
	start := time.Now()
	report, err := bench.Push(t.Context(), e, bench.PushShort())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("took %v", time.Since(start))
	seen := make(map[string]int)
	for _, row := range report.Rows {
		m := row.Median
		seen[row.Way]++
		name := fmt.Sprintf("%s, %d backends", row.Way, row.Backends)
		if len(row.Rounds) != report.Config.Rounds || !slices.Contains(report.Config.Backends, row.Backends) {
			t.Errorf("%s: %d rounds", name, len(row.Rounds))
		}
		if m.PerSecond <= 0 || m.ClosedCPU <= 0 || m.OwnCPU <= 0 || m.PacedCPU <= m.OwnCPU || row.Idle <= 0 || (row.Changed != nil) != (row.Way == bench.WaySelvedge) {
			t.Errorf("%s: %+v", name, m)
		}
		if m.ClientP50 <= 0 || m.ClientP99 < m.ClientP50 || m.AnswerP50 <= 0 || m.AnswerP99 < m.AnswerP50 {
			t.Errorf("%s, latencies: %+v", name, m)
		}
		if least := report.Config.Paced + 2*report.Config.Users; row.Messages != row.Pushes || row.Messages < least {
			t.Errorf("%s: %d pushes, %d delivered; want as many, and at least %d", name, row.Pushes, row.Messages, least)
		}
	}
	want := map[string]int{bench.WaySelvedge: 2, bench.WayRedis: 2, bench.WayPipelined: 2, bench.WayRabbitMQ: 2, bench.WayBridge: 1}
	if !maps.Equal(seen, want) {
		t.Errorf("rows %v; want %v", seen, want)
	}
	if len(report.Musts) == 0 || len(report.Versions) != 2 {
		t.Errorf("musts %v, versions %q", report.Musts, report.Versions)
	}
	checkOutput(t, report, "push", "CPU us/push", "asks/push", "RabbitMQ 3", "MET")
}

// checkOutput checks that the table names what it should, that the JSON can be read, and that the plot is XML.
func checkOutput(t *testing.T, report bench.Report, name string, words ...string) {
	t.Helper()
	var text strings.Builder
	if err := report.Table().WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, word := range words {
		if !strings.Contains(text.String(), word) {
			t.Errorf("the table does not say %q:\n%s", word, text.String())
		}
	}
	dir := filepath.Join(t.TempDir(), "out")
	if err := bench.Save(dir, report); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var decoded struct {
		Benchmark string
		Rows      []map[string]any
	}
	if err := json.Unmarshal(data, &decoded); err != nil || decoded.Benchmark != name || len(decoded.Rows) == 0 {
		t.Errorf("%s.json: %v, %+v", name, err, decoded)
	}
	plot, err := os.Open(filepath.Join(dir, name+".svg"))
	if err != nil {
		t.Fatal(err)
	}
	defer plot.Close()
	for decoder := xml.NewDecoder(plot); ; {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%s.svg: %v", name, err)
		}
	}
}

func TestMissingBinary(t *testing.T) {
	_, err := bench.Sessions(t.Context(), bench.Env{Binary: filepath.Join(t.TempDir(), "none")}, bench.SessionsShort())
	if err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("%v; want an error that says what to do", err)
	}
}
