package bridge

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/backend/backendtest"
	"github.com/selvedge/selvedge/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running is a bridge under test, to a real member.
type running struct {
	*Bridge
	t      testing.TB
	log    *observer.ObservedLogs
	stop   func()
	ended  chan error
	listed string // its metrics at the start
}

// runBridge runs a bridge to m, or to what cfg says, until the test ends or stop is called, and waits until it reads its broker.
func runBridge(t testing.TB, m *backendtest.Member, cfg Config) *running {
	t.Helper()
	core, log := observer.New(zap.DebugLevel)
	cfg.Logger = zap.New(core)
	if m != nil {
		cfg.Sender.Via = "http://" + m.RPCAddr().String()
	}
	cfg.Metrics = prometheus.NewRegistry()
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &running{Bridge: b, t: t, log: log, stop: stop, ended: make(chan error, 1)}
	r.listed = r.listMetrics()
	go func() { r.ended <- b.Run(ctx) }()
	t.Cleanup(r.end)
	select {
	case <-b.Ready():
	case err := <-r.ended:
		t.Fatalf("the bridge has ended: %v", err)
	case <-time.After(30 * time.Second):
		t.Fatalf("the bridge does not read its broker: %v", log.All())
	}
	return r
}

// end stops the bridge and waits for its end. Nothing that happened to it has added a metric, or a value of a label.
func (r *running) end() {
	r.t.Helper()
	r.stop()
	select {
	case err := <-r.ended:
		if err != nil {
			r.t.Errorf("Run: %v", err)
		}
		r.ended <- nil
	case <-time.After(30 * time.Second):
		r.t.Fatal("the bridge does not stop")
	}
	if now := r.listMetrics(); now != r.listed {
		r.t.Errorf("metrics at the start:\n%sat the end:\n%s", r.listed, now)
	}
}

// listMetrics lists those of the bridge itself; its sender takes its own away at the end.
func (r *running) listMetrics() string {
	r.t.Helper()
	all := gather(r.t, r.cfg.Metrics)
	maps.DeleteFunc(all, func(name string, _ *dto.MetricFamily) bool { return !strings.HasPrefix(name, "selvedge_bridge_") })
	return testkit.ListMetrics("bridge", all)
}

// counts waits until a metric with these labels ("" for none, else name=value) has a value.
func (r *running) counts(metric, label string, want float64) {
	r.t.Helper()
	testkit.Eventually(r.t, 30*time.Second, func() error {
		if got := r.metric(metric, label); got != want {
			return fmt.Errorf("it is %v", got)
		}
		return nil
	}, fmt.Sprintf("%s{%s} to be %v", metric, label, want))
}

func (r *running) metric(metric, label string) float64 {
	r.t.Helper()
	families, err := r.cfg.Metrics.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "selvedge_bridge_"+metric {
			continue
		}
		for _, m := range f.Metric {
			found := label == ""
			for _, l := range m.Label {
				found = found || l.GetName()+"="+l.GetValue() == label
			}
			if found {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	r.t.Fatalf("no metric %s{%s}", metric, label)
	return 0
}

// wants checks what a client gets next.
func wants(t testing.TB, c *backendtest.Client, texts ...string) {
	t.Helper()
	for _, want := range texts {
		if got := string(c.Receive().Data); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

func newMember(t testing.TB) *backendtest.Member {
	return backendtest.New(t, backend.Config{ID: "b1"})
}

// ask returns the status of the operator's listener at a path.
func (r *running) ask(path string) (status int, body string) {
	r.t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + r.AdminAddr().String() + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}
