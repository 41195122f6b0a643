package discovery

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/selvedge/selvedge/internal/testkit"
)

// scrape returns the values of a view's metrics by name, without prefix and labels; all are of service chat.
func scrape(t *testing.T, views ...*View) map[string]string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	for _, v := range views {
		if err := registry.Register(v.Metrics()); err != nil {
			t.Fatal(err)
		}
	}
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	values := make(map[string]string)
	for line := range strings.Lines(w.Body.String()) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		name, labels, _ := strings.Cut(name, "{")
		if strings.Contains(labels, `service="chat"`) {
			values[strings.TrimPrefix(name, "selvedge_")] = value
		}
	}
	return values
}

func wantMetrics(t *testing.T, when string, v *View, want string) {
	t.Helper()
	got := scrape(t, v)
	for pair := range strings.FieldsSeq(want) {
		name, value, _ := strings.Cut(pair, "=")
		if got[name] != value {
			t.Errorf("%s: %s is %q, want %s", when, name, got[name], value)
		}
	}
}

// TestMetricsOfConsul: what a watch of Consul decides, and what goes wrong with it, can be seen from the start and is taken back.
func TestMetricsOfConsul(t *testing.T) {
	c, err := NewConsul(ConsulConfig{PanicThreshold: map[string]float64{"chat": 0.6, "web": 0.1}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := NewView("chat", c, nil)
	w := &catalogue{judge: judge{log: testNop, update: v.update, counters: c.countersOf("chat"), panicThreshold: c.panicThreshold("chat")}}
	if c.panicThreshold("game") != DefaultPanicThreshold {
		t.Error("a service that is not named has no default")
	}
	wantMetrics(t, "before", v, "ring_members=0 ring_panic=0 ring_damped=0 discovery_flaps_total=0 discovery_stale=0 "+
		"discovery_outages_total=0 discovery_index_resets_total=0 discovery_held=0 discovery_rejected_total=0")
	now := time.Unix(1000, 0)
	index := uint64(10)
	say := func(statuses string) {
		var entries []*api.ServiceEntry
		for i, s := range statuses {
			entries = append(entries, entry(fmt.Sprint("b", i), status(map[rune]string{'p': "passing", 'c': "critical"}[s])))
		}
		now, index = now.Add(time.Second), index+1
		w.take(now, entries, answered(index))
	}
	say("pppp")
	say("ppcc")
	wantMetrics(t, "two of four", v, "ring_members=4 ring_panic=1 ring_changes_total=1")
	say("pppp")
	wantMetrics(t, "well again", v, "ring_members=4 ring_panic=0 discovery_flaps_total=2")
	for range 3 {
		say("pppc")
		say("pppp")
	}
	wantMetrics(t, "one flaps", v, "ring_members=3 ring_damped=1 discovery_flaps_total=5")
	w.lost(now, errors.New("away"))
	w.lost(now, errors.New("away"))
	wantMetrics(t, "away", v, "discovery_stale=1 discovery_outages_total=1 ring_members=3")
	say("cppp")
	wantMetrics(t, "back", v, "discovery_stale=0 discovery_outages_total=1 discovery_held=1 ring_members=3")
	index = 1
	say("pppp")
	wantMetrics(t, "older data", v, "discovery_index_resets_total=1 discovery_held=0")
	v.update([]Member{member("a"), member("a")})
	wantMetrics(t, "nonsense", v, "discovery_rejected_total=1")

	if got := scrape(t, v, NewView("web", c, nil)); got["discovery_outages_total"] != "1" {
		t.Errorf("two services in one registry: %v", got)
	}
}

// TestMetricsOfAFile: a file that breaks leaves the last members in force, and that shows; so does a start from disk.
func TestMetricsOfAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "members.yaml")
	good := []byte("services: {chat: [{id: a, addr: 'a:1'}]}")
	write := func(text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(good)
	file, err := NewFile(path, testNop)
	if err != nil {
		t.Fatal(err)
	}
	remembered, err := Remember(file, t.TempDir(), testNop)
	if err != nil {
		t.Fatal(err)
	}
	v := NewView("chat", remembered, nil)
	r := registryReader{file: file, service: "chat", update: v.update}
	r.read()
	wantMetrics(t, "good", v, "ring_members=1 discovery_stale=0 discovery_outages_total=0")
	write([]byte("services: ["))
	r.read()
	r.read()
	wantMetrics(t, "broken", v, "ring_members=1 discovery_stale=1 discovery_outages_total=1")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	r.read()
	wantMetrics(t, "gone", v, "ring_members=1 discovery_stale=1 discovery_outages_total=1")
	write(good)
	r.read()
	wantMetrics(t, "good again", v, "ring_members=1 discovery_stale=0 discovery_outages_total=1")
}

func TestMetricsOfWhatIsRemembered(t *testing.T) {
	dir := t.TempDir()
	if err := keepMembers(filepath.Join(dir, "members-chat.json"), []Member{member("a")}); err != nil {
		t.Fatal(err)
	}
	src, err := Remember(silent{}, dir, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	v := NewView("chat", src, nil)
	go func() { _ = v.Run(t.Context()) }()
	testkit.Eventually(t, soon, func() bool { return scrape(t, v)["discovery_stale"] == "1" }, "the members are those of the disk")
	wantMetrics(t, "recalled", v, "ring_members=1")
}
