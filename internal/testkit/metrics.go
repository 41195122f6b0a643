package testkit

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
)

// unbounded are the labels whose values are not listed: an operator's names, digests of rings, and bounds of buckets.
var unbounded = []string{"service", "digest", "le"}

// ListMetrics has a line for each metric: whose it is, type, name, and its labels with all their values.
func ListMetrics(process string, metrics map[string]*dto.MetricFamily) string {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(metrics)) {
		f := metrics[name]
		fmt.Fprintf(&text, "%-8s %-10s %s", process, strings.ToLower(f.GetType().String()), name)
		labels := make(map[string][]string)
		for _, m := range f.Metric {
			for _, l := range m.Label {
				labels[l.GetName()] = append(labels[l.GetName()], l.GetValue())
			}
			if m.Histogram != nil {
				labels["le"] = nil
			}
		}
		for _, label := range slices.Sorted(maps.Keys(labels)) {
			values := labels[label]
			fmt.Fprintf(&text, " %s", label)
			if !slices.Contains(unbounded, label) {
				slices.Sort(values)
				fmt.Fprintf(&text, "=%s", strings.Join(slices.Compact(values), ","))
			}
		}
		text.WriteByte('\n')
	}
	return text.String()
}

// CompareMetrics holds a list against testdata/metrics.golden, line by line, or writes it there.
func CompareMetrics(t testing.TB, list string, update bool) {
	t.Helper()
	file := filepath.Join("testdata", "metrics.golden")
	if update {
		if err := os.WriteFile(file, []byte(list), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	golden, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; run the test with -update", err)
	}
	got, want := strings.Split(list, "\n"), strings.Split(string(golden), "\n")
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("%s has, and there is not: %s", file, line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("%s has not, and there is: %s", file, line)
		}
	}
}
