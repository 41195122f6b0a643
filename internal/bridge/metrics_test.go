package bridge

import (
	"flag"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"github.com/selvedge/selvedge/backend/sender"
	"github.com/selvedge/selvedge/internal/testkit"
)

// update writes golden files instead of comparing with them.
var update = flag.Bool("update", false, "write testdata/*.golden")

// The metrics of a bridge are those of testdata/metrics.golden, whatever it reads: by type, name and labels, with each value that a label can have. All are there at zero
// before anything has happened; that none is added is looked at when any other test's bridge ends (running.end). Dashboards and alerts lean on that file.
func TestMetrics(t *testing.T) {
	configs := []Config{
		{AMQP: "amqp://broker", Queue: "q"}, {NATS: "nats://broker", Stream: "s"}, {NATS: "nats://broker", Subject: "s"},
		{Redis: "redis://broker", Channel: "c"}, {Redis: "redis://broker", Stream: "s"},
	}
	var sources, lists []string
	for _, cfg := range configs {
		cfg.Metrics, cfg.Sender = prometheus.NewRegistry(), sender.Config{Via: "http://127.0.0.1:1"}
		b, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if problems, err := testutil.GatherAndLint(cfg.Metrics); err != nil || len(problems) > 0 {
			t.Errorf("%v, %v", problems, err)
		}
		families := gather(t, cfg.Metrics)
		b.sender.Close()
		for name, f := range families {
			for _, m := range f.Metric {
				if m.GetCounter().GetValue()+m.GetGauge().GetValue()+float64(m.GetHistogram().GetSampleCount()) != 0 {
					t.Errorf("%s is %v before anything has happened", name, m)
				}
			}
		}
		sources = append(sources, b.source.kind())
		lists = append(lists, testkit.ListMetrics("bridge", families))
	}
	slices.Sort(sources)
	for i, list := range lists {
		for _, one := range sources { // each list has its own
			list = strings.ReplaceAll(list, " source="+one+"\n", " source="+strings.Join(sources, ",")+"\n")
		}
		testkit.CompareMetrics(t, list, *update && i == 0)
	}
}

func gather(t testing.TB, registry *prometheus.Registry) map[string]*dto.MetricFamily {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]*dto.MetricFamily)
	for _, f := range families {
		all[f.GetName()] = f
	}
	return all
}
