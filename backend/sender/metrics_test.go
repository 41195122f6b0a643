package sender_test

import (
	"context"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/backend/sender"
)

// figures reads what a registry shows, by name and outcome; of a histogram its count.
func figures(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.Metric {
			name := strings.TrimPrefix(f.GetName(), "selvedge_sender_")
			for _, l := range m.Label {
				if l.GetName() == "outcome" {
					name += " " + l.GetValue()
				}
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return got
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	member := serve(t, "b1", func(try int) (*pushv1.PushResponse, error) {
		switch try {
		case 1:
			return nil, pushv1.NewError(connect.CodeAborted, &pushv1.ErrorDetail{Reason: pushv1.Reason_UNSETTLED}, context.DeadlineExceeded)
		case 2:
			return delivered(try)
		case 3:
			return &pushv1.PushResponse{Outcome: pushv1.Outcome_OFFLINE}, nil
		default:
			return nil, connect.NewError(connect.CodeInvalidArgument, nil)
		}
	})
	cfg := sender.Config{Via: member.url, Metrics: registry}
	s := newSender(t, cfg)
	want := map[string]float64{"pushes_total delivered": 0, "pushes_total offline": 0, "pushes_total error": 0, "retries_total": 0, "push_seconds": 0, "in_flight": 0}
	check := func(when string) {
		t.Helper()
		got := figures(t, registry)
		if len(got) != len(want) {
			t.Errorf("%s: %v", when, got)
		}
		for name, n := range want {
			if got[name] != n {
				t.Errorf("%s: %s is %v, want %v", when, name, got[name], n)
			}
		}
	}
	check("at first")
	for range 3 {
		_, _ = s.Push(context.Background(), "alice", sender.Text("hi")) // how each ends is counted
	}
	want = map[string]float64{"pushes_total delivered": 1, "pushes_total offline": 1, "pushes_total error": 1, "retries_total": 1, "push_seconds": 3, "in_flight": 0}
	check("after three pushes")
	if _, err := sender.New(cfg); err == nil {
		t.Error("two senders count in one place")
	}
	s.Close()
	newSender(t, cfg)
}
