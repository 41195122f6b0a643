package backend_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/internal/testkit"
)

// scrape returns every sample as "name{label=value}", without the service label, which it checks.
func scrape(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	samples := make(map[string]float64)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name, service := family.GetName(), ""
			for _, label := range m.GetLabel() {
				if label.GetName() == "service" {
					service = label.GetValue()
				} else if label.GetName() != "digest" {
					name += fmt.Sprintf("{%s=%s}", label.GetName(), label.GetValue())
				}
			}
			if service != "default" {
				t.Errorf("%s: service %q", name, service)
			}
			switch {
			case m.Counter != nil:
				samples[name] = m.GetCounter().GetValue()
			case m.Gauge != nil:
				samples[name] = m.GetGauge().GetValue()
			case m.Histogram != nil:
				samples[name] = float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return samples
}

func metric(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	value, there := scrape(t, registry)[name]
	if !there {
		t.Fatalf("no metric %s", name)
	}
	return value
}

func TestMetrics(t *testing.T) {
	c := newCluster(t, 2, nil)
	home, other := c.home("alice"), c.elsewhere("alice")

	// Everything is there before anything has happened, at zero but for the ring.
	samples := scrape(t, home.registry)
	for _, reason := range []string{
		"client", "lost", "service", "moved", "restart", "stopped", "kick", "overloaded", "too_big", "protocol", "panic", "refused",
	} {
		if _, there := samples["selvedge_backend_session_closes_total{reason="+reason+"}"]; !there {
			t.Errorf("no closes by %s", reason)
		}
	}
	for _, name := range []string{
		"selvedge_backend_sessions", "selvedge_backend_pushes_total{outcome=delivered}", "selvedge_backend_pushes_total{outcome=offline}",
		"selvedge_backend_pushes_total{outcome=error}", "selvedge_backend_push_seconds", "selvedge_backend_forwards_total",
		"selvedge_backend_asks_total", "selvedge_backend_moves_total", "selvedge_backend_sessions_to_move", "selvedge_backend_write_queue_bytes",
	} {
		if value, there := samples[name]; !there || value != 0 {
			t.Errorf("%s: %v, there: %t; want 0", name, value, there)
		}
	}
	if samples["selvedge_ring_members"] != 2 || samples["selvedge_ring_changes_total"] < 1 || samples["selvedge_ring_info"] != 1 {
		t.Errorf("ring: %v", samples)
	}

	alice := home.open(t, "alice")
	for _, user := range []string{"alice", "nobody"} {
		if _, err := other.Push(context.Background(), user, backend.Text("hi")); err != nil {
			t.Fatal(err)
		}
	}
	alice.want("text hi")
	if got := metric(t, home.registry, "selvedge_backend_sessions"); got != 1 {
		t.Errorf("%v sessions", got)
	}
	alice.write(closing(1000, ""))
	alice.want("close 1000", "end")
	alice.Close()
	closes := "selvedge_backend_session_closes_total{reason=client}"
	testkit.Eventually(t, 5*time.Second, func() bool { return metric(t, home.registry, closes) == 1 }, closes)
	want := map[string]float64{
		"selvedge_backend_pushes_total{outcome=delivered}": 1, "selvedge_backend_pushes_total{outcome=offline}": 1,
		"selvedge_backend_push_seconds": 2, "selvedge_backend_pushes_total{outcome=error}": 0,
	}
	samples = scrape(t, other.registry)
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if samples[name] != want[name] {
			t.Errorf("%s: %v, want %v", name, samples[name], want[name])
		}
	}
	if samples["selvedge_backend_forwards_total"] < 1 {
		t.Error("no forward was counted")
	}
	if got := metric(t, home.registry, "selvedge_backend_sessions"); got != 0 {
		t.Errorf("%v sessions after the last closed", got)
	}
}

// The gauge of queued bytes comes back to zero, whether a queue was written out or given up.
func TestQueueGauge(t *testing.T) {
	c := newCluster(t, 1, nil)
	m := c.members[0]
	const gauge = "selvedge_backend_write_queue_bytes"
	for name, leave := range map[string]func(s *socket){
		"read":  func(s *socket) { _ = s.next() },
		"reset": func(s *socket) { reset(t, s) },
	} {
		s := m.open(t, "alice")
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		_, err := m.Push(ctx, "alice", clog)
		cancel()
		if err == nil || metric(t, m.registry, gauge) <= 0 {
			t.Fatalf("%s: push: %v; queued %v", name, err, metric(t, m.registry, gauge))
		}
		leave(s)
		testkit.Eventually(t, 5*time.Second, func() bool { return metric(t, m.registry, gauge) == 0 }, gauge+" back to 0 after "+name)
		s.Close()
		testkit.Eventually(t, 5*time.Second, func() bool { return m.Sessions() == 0 }, "the session to end")
	}
}
