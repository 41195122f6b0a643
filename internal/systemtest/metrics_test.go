package systemtest

import (
	"flag"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/selvedge/selvedge/internal/testkit"
)

// update writes golden files instead of comparing with them.
var update = flag.Bool("update", false, "write testdata/*.golden")

// The metrics of a cluster are those of testdata/metrics.golden, by process, type, name and labels, with each value that a label can have: all are there before anything
// has happened, and none is added by traffic, refusals, pushes, moves and deaths. Dashboards and alerts lean on that file. A bridge's
// are in a list of package bridge.
func TestMetrics(t *testing.T) {
	c := &cluster{t: t, consul: testkit.StartConsul(t), backends: make(map[string]*member)}
	admins := make(map[string]string)
	add := func(id string) {
		b := c.addBackend(id, "--admin", "127.0.0.1:0")
		admins[id] = b.waitLog("serving")["admin"].(string)
	}
	for _, id := range []string{"b1", "b2", "b3"} {
		add(id)
	}
	config := filepath.Join(t.TempDir(), "edge.yaml")
	writeFile(t, config, "routes: [{path: /ws}, {path: /whoami}]\nlimits: {per_user: 2}\n")
	edge := c.addEdge("edge", "--consul", c.consul.Addr, "--config", config)
	c.awaitRing(3)

	testkit.CompareMetrics(t, testkit.ListMetrics("edge", scrape(t, edge.admin))+testkit.ListMetrics("backend", scrape(t, admins["b1"])), *update)
	for name, f := range scrape(t, edge.admin) {
		if counter := f.GetType() == dto.MetricType_COUNTER; counter && name != "selvedge_ring_changes_total" && total(f, nil) != 0 {
			t.Errorf("%s is %v before anything has happened", name, total(f, nil))
		}
	}

	users := userNames(60)
	crowd := online(t, users, 2, edge)
	for target, status := range map[string]int{"/ws?user=user-1": 429, "/ws": 400, "/nowhere?user=a": 404} {
		if got, _, _ := ask(t, edge.addr, target, upgradeFields); got != status {
			t.Errorf("%s: %d, want %d", target, got, status)
		}
	}
	if status, _, _ := ask(t, edge.addr, "/whoami?user=a", "Connection: close\r\n"); status != 200 {
		t.Errorf("/whoami: %d", status)
	}
	for _, via := range []string{edge.admin, c.backends["b1"].rpc, c.backends["b3"].rpc} { // two thirds of what a member gets belong to another
		if _, stderr, code := run(t, strings.Join(users, "\n"), "push", "--to-file", "-", "--text", "hi", "--via", via); code != 0 {
			t.Fatalf("push via %s: exit code %d, %s", via, code, stderr)
		}
		if _, _, code := run(t, "", "push", "--to", "nobody", "--text", "hi", "--via", via); code != 3 {
			t.Errorf("push to nobody: exit code %d", code)
		}
	}
	crowd.await("each device to get three pushes", 20*time.Second, func(d *device) bool { return d.got("hi") == 3 })
	for _, via := range []string{edge.admin, c.backends["b1"].rpc, c.backends["b3"].rpc} {
		again := []string{"push", "--to", "user-1", "--text", "of the same id, and another text: " + via, "--message-id", "m1", "--via", via}
		if _, stderr, code := run(t, "", again...); (code == 1) != (via != edge.admin) {
			t.Errorf("push via %s: exit code %d, %s", via, code, stderr)
		}
	}
	if status := post(t, edge.admin, "/selvedge.push.v1.PushService/Push", `{"user":"","text":"to nobody at all"}`); status != 400 {
		t.Errorf("a push without a user: %d", status)
	}
	talkative := &device{url: "/ws?user=talkative"}
	conn, err := talkative.dial(t.Context(), edge.addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := ws.WriteFrame(conn, ws.MaskFrame(ws.NewTextFrame([]byte(`{"to":"user-1","text":"hello"}`)))); err != nil {
		t.Error(err)
	}
	crowd.await("user-1 to hear it", 20*time.Second, func(d *device) bool { return d.user != "user-1" || d.messages() == 5 })
	conn.Close()
	// A member dies, and before Consul notices its users come back elsewhere; then one comes, and users move to it.
	c.backends["b2"].kill()
	delete(c.backends, "b2")
	crowd.await("the users of b2 to be elsewhere", 30*time.Second, func(d *device) bool { return d.held() != "" && d.held() != "b2" })
	add("b4")
	testkit.Eventually(t, 60*time.Second, func() bool {
		return moved("selvedge_backend_moves_total", scrape(t, admins["b1"]), scrape(t, admins["b3"])) > 0
	}, "a session to move")

	atEdge := scrape(t, edge.admin)
	atBackends := []families{scrape(t, admins["b1"]), scrape(t, admins["b3"])}
	for _, m := range atBackends {
		testkit.CompareMetrics(t, testkit.ListMetrics("edge", atEdge)+testkit.ListMetrics("backend", m), *update)
	}
	for _, want := range []string{
		"selvedge_edge_sessions", "selvedge_edge_upgrades_total code=101", "selvedge_edge_upgrades_total code=400", "selvedge_edge_upgrades_total code=404",
		"selvedge_edge_upgrades_total code=429", "selvedge_edge_upgrade_seconds", "selvedge_edge_requests_total code=200", "selvedge_edge_session_closes_total reason=backend_closed",
		"selvedge_edge_tunnel_bytes_total direction=to_client", "selvedge_edge_tunnel_bytes_total direction=to_backend", "selvedge_edge_dial_failures_total",
		"selvedge_edge_refusals_total reason=per_user", "selvedge_edge_refusals_total reason=bad_user", "selvedge_edge_refusals_total reason=no_route",
		"selvedge_ring_members", "selvedge_ring_changes_total", "selvedge_ring_info",
		"selvedge_sender_pushes_total outcome=delivered", "selvedge_sender_pushes_total outcome=offline", "selvedge_sender_pushes_total outcome=error", "selvedge_sender_push_seconds",
	} {
		if moved(want, atEdge) == 0 {
			t.Errorf("edge: %s is zero after all that", want)
		}
	}
	for _, want := range []string{
		"selvedge_backend_sessions", "selvedge_backend_pushes_total outcome=delivered", "selvedge_backend_pushes_total outcome=offline", "selvedge_backend_pushes_total outcome=error",
		"selvedge_backend_push_seconds", "selvedge_backend_forwards_total", "selvedge_backend_moves_total", "selvedge_backend_session_closes_total reason=moved",
		"selvedge_backend_peer_deaths_total", "selvedge_ring_members", "selvedge_ring_changes_total", "selvedge_ring_info",
	} {
		if moved(want, atBackends...) == 0 {
			t.Errorf("backends: %s is zero after all that", want)
		}
	}
}

// post sends JSON and returns the status.
func post(t *testing.T, addr, path, body string) int {
	t.Helper()
	answer, err := http.Post("http://"+addr+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	return answer.StatusCode
}

type families map[string]*dto.MetricFamily

// scrape reads the project's own metrics of a process, which must be as Prometheus wants them.
func scrape(t *testing.T, admin string) families {
	t.Helper()
	answer, err := http.Get("http://" + admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	all, err := parser.TextToMetricFamilies(answer.Body)
	if err != nil {
		t.Fatalf("%s: %v", admin, err)
	}
	maps.DeleteFunc(all, func(name string, _ *dto.MetricFamily) bool { return !strings.HasPrefix(name, "selvedge_") })
	problems, err := promlint.NewWithMetricFamilies(slices.Collect(maps.Values(all))).Lint()
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// total adds up the samples that carry the label; of histograms their counts.
func total(f *dto.MetricFamily, with *dto.LabelPair) (sum float64) {
	for _, m := range f.GetMetric() {
		if with == nil || slices.ContainsFunc(m.Label, func(l *dto.LabelPair) bool {
			return l.GetName() == with.GetName() && l.GetValue() == with.GetValue()
		}) {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

// moved adds up "NAME" or "NAME LABEL=VALUE".
func moved(what string, at ...families) (sum float64) {
	name, label, labelled := strings.Cut(what, " ")
	var with *dto.LabelPair
	if labelled {
		key, value, _ := strings.Cut(label, "=")
		with = &dto.LabelPair{Name: &key, Value: &value}
	}
	for _, metrics := range at {
		sum += total(metrics[name], with)
	}
	return sum
}
