package verify

import (
	"encoding/json"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	promconfig "github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/discovery/consul"
	filesd "github.com/prometheus/prometheus/discovery/file"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/promql/parser"
	yamlv2 "gopkg.in/yaml.v2" // what Prometheus' types are made for
	"sigs.k8s.io/yaml"
)

// metric is one of the lists that tests of the product keep true: its labels, with their values where those are listed.
type metric struct {
	kind   string
	labels map[string][]string
}

// targetLabels are those that prometheus.yaml gives to what it reads.
var targetLabels = []string{"job", "instance", "member", "consul_service"}

// metrics reads the lists of all that edges, backends and bridges have, with those of the process, as each shows them.
func metrics(t *testing.T) map[string]metric {
	t.Helper()
	all := map[string]metric{"up": {kind: "gauge"}}
	for _, line := range append(listed(t, "systemtest"), listed(t, "bridge")...) {
		fields := strings.Fields(line)
		m := metric{fields[1], make(map[string][]string)}
		for _, label := range fields[3:] {
			name, values, listed := strings.Cut(label, "=")
			m.labels[name] = nil
			if listed {
				m.labels[name] = strings.Split(values, ",")
			}
		}
		if m.kind == "histogram" {
			for _, part := range []string{"_bucket", "_sum", "_count"} {
				all[fields[2]+part] = m
			}
			continue
		}
		all[fields[2]] = m
	}
	for _, name := range []string{"process_open_fds", "process_max_fds", "process_resident_memory_bytes", "process_cpu_seconds_total"} {
		all[name] = metric{kind: "process"}
	}
	for name, rule := range rules(t, "rules.yaml") {
		all[name] = metric{kind: "rule", labels: map[string][]string{"service": nil}}
		if strings.Contains(rule, "process_") || strings.Contains(rule, "sessions_limit") {
			all[name] = metric{kind: "rule"}
		}
	}
	return all
}

// listed are the lines of the list of a package.
func listed(t *testing.T, name string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../internal", name, "testdata/metrics.golden"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

// rules are the expressions of a file, by what they record or alert to.
func rules(t *testing.T, name string) map[string]string {
	t.Helper()
	var groups struct {
		Groups []struct {
			Rules []struct{ Record, Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal([]byte(file(t, "prometheus/"+name)), &groups); err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			all[r.Record+r.Alert] = r.Expr
		}
	}
	return all
}

// check holds an expression against the metrics that there are: names, labels and their values.
func check(t *testing.T, where, text string, all map[string]metric) {
	t.Helper()
	text = strings.NewReplacer("$__rate_interval", "5m", "$service", ".+").Replace(text)
	expr, err := parser.ParseExpr(text)
	if err != nil {
		t.Errorf("%s: %v in %s", where, err, text)
		return
	}
	known := make(map[string]bool) // labels of what the expression reads
	for _, label := range targetLabels {
		known[label] = true
	}
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		selector, is := node.(*parser.VectorSelector)
		if !is {
			return nil
		}
		m, there := all[selector.Name]
		if !there {
			t.Errorf("%s: there is no metric %s", where, selector.Name)
			return nil
		}
		for name := range m.labels {
			known[name] = true
		}
		for _, matcher := range selector.LabelMatchers {
			values, has := m.labels[matcher.Name]
			switch {
			case matcher.Name == labels.MetricName || slices.Contains(targetLabels, matcher.Name):
			case !has:
				t.Errorf("%s: %s has no label %s", where, selector.Name, matcher.Name)
			case values != nil && !slices.ContainsFunc(values, matcher.Matches):
				t.Errorf("%s: %s is never any of %s, but %v", where, selector.Name, matcher, values)
			}
			if matcher.Type == labels.MatchRegexp && values != nil {
				for _, one := range strings.Split(matcher.Value, "|") {
					if !slices.Contains(values, one) {
						t.Errorf("%s: %s is never %s=%s", where, selector.Name, matcher.Name, one)
					}
				}
			}
		}
		return nil
	})
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		if by, is := node.(*parser.AggregateExpr); is {
			for _, label := range by.Grouping {
				if !known[label] {
					t.Errorf("%s: nothing that it reads has the label %s", where, label)
				}
			}
		}
		if binary, is := node.(*parser.BinaryExpr); is && binary.VectorMatching != nil {
			for _, label := range binary.VectorMatching.MatchingLabels {
				if !known[label] {
					t.Errorf("%s: nothing that it reads has the label %s", where, label)
				}
			}
		}
		return nil
	})
}

// Rules and alerts ask for metrics that there are; each alert has a test of firing and one of silence, and a section in OPERATING.md.
func TestRules(t *testing.T) {
	all := metrics(t)
	for name, expr := range rules(t, "rules.yaml") {
		check(t, name, expr, all)
	}
	alerts := rules(t, "alerts.yaml")
	if len(alerts) < 10 {
		t.Fatalf("%d alerts", len(alerts))
	}
	var tests struct {
		Tests []struct {
			Alerts []struct {
				Name string            `json:"alertname"`
				Want []json.RawMessage `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		}
	}
	if err := yaml.Unmarshal([]byte(file(t, "prometheus/alerts_test.yaml")), &tests); err != nil {
		t.Fatal(err)
	}
	fires, silent := make(map[string]bool), make(map[string]bool)
	for _, one := range tests.Tests {
		for _, a := range one.Alerts {
			if alerts[a.Name] == "" {
				t.Errorf("alerts_test.yaml tests %s, which is no alert", a.Name)
			}
			fires[a.Name] = fires[a.Name] || len(a.Want) > 0
			silent[a.Name] = silent[a.Name] || len(a.Want) == 0
		}
	}
	for _, name := range slices.Sorted(maps.Keys(alerts)) {
		check(t, name, alerts[name], all)
		if !fires[name] || !silent[name] {
			t.Errorf("%s: a test sees it fire: %t, and be silent: %t", name, fires[name], silent[name])
		}
		if !strings.Contains(file(t, "OPERATING.md"), "\n### "+name+"\n") {
			t.Errorf("OPERATING.md has no section %s", name)
		}
	}
	for _, reason := range all["selvedge_bridge_put_aside_total"].labels["reason"] {
		if !strings.Contains(file(t, "OPERATING.md"), "\n| `"+reason+"` | ") {
			t.Errorf("OPERATING.md does not say what to do with messages that are put aside for being %s", reason)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^### (Selvedge\w+)$`).FindAllStringSubmatch(file(t, "OPERATING.md"), -1) {
		if alerts[m[1]] == "" {
			t.Errorf("OPERATING.md explains %s, which is no alert", m[1])
		}
	}
}

// Prometheus' own tool evaluates the alerts over made-up series.
func TestAlerts(t *testing.T) {
	tool, err := exec.LookPath("promtool")
	if err != nil {
		tool = "../../bin/promtool"
	}
	for _, args := range [][]string{{"check", "rules", "--lint-fatal", "rules.yaml", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml"}} {
		tool, err := filepath.Abs(tool)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(tool, args...)
		cmd.Dir = "../prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v (make promtool)\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// prometheus.yaml is what Prometheus takes, and its relabelling finds the admin listeners of those that Consul lists, and those of the bridges that a file names.
func TestScraping(t *testing.T) {
	var conf struct {
		Global struct {
			Scrape   string `yaml:"scrape_interval"`
			Evaluate string `yaml:"evaluation_interval"`
		} `yaml:"global"`
		Rules []string `yaml:"rule_files"`
		Jobs  []struct {
			Name          string                    `yaml:"job_name"`
			Authorization *promconfig.Authorization `yaml:"authorization"`
			Consul        []*consul.SDConfig        `yaml:"consul_sd_configs"`
			Files         []*filesd.SDConfig        `yaml:"file_sd_configs"`
			Relabel       []*relabel.Config         `yaml:"relabel_configs"`
		} `yaml:"scrape_configs"`
	}
	if err := yamlv2.UnmarshalStrict([]byte(file(t, "prometheus/prometheus.yaml")), &conf); err != nil {
		t.Fatal(err)
	}
	jobs := make(map[string][]*relabel.Config)
	named := make(map[string][]string) // the files of a job
	for _, job := range conf.Jobs {
		jobs[job.Name] = job.Relabel
		if job.Authorization == nil || job.Authorization.CredentialsFile == "" || len(job.Consul)+len(job.Files) != 1 {
			t.Errorf("%s: %v, %v, %v", job.Name, job.Authorization, job.Consul, job.Files)
		}
		for _, list := range job.Files {
			named[job.Name] = list.Files
		}
	}
	for _, name := range conf.Rules {
		if len(rules(t, name)) == 0 {
			t.Errorf("%s has no rules", name)
		}
	}
	for _, test := range []struct {
		job, health, address, id string
		want                     string
	}{
		{"selvedge-backend", "passing", "10.0.0.1", "b1", "10.0.0.1:9101"},
		{"selvedge-backend", "warning", "", "b1", "10.9.9.9:9101"}, // without an address of its own it has its node's
		{"selvedge-backend", "critical", "10.0.0.1", "b1", ""},
		{"selvedge-backend", "passing", "10.0.0.1", "", ""},
		{"selvedge-edge", "passing", "", "", "10.9.9.9:8081"},
		{"selvedge-edge", "critical", "10.0.0.2", "", "10.0.0.2:8081"}, // it drains, or is broken: that is worth a look
	} {
		service := map[string]string{"selvedge-backend": "chat", "selvedge-edge": "selvedge-edge"}[test.job]
		found := labels.FromMap(map[string]string{
			"__address__": "10.0.0.1:9000", "__meta_consul_health": test.health, "__meta_consul_service_address": test.address, "__meta_consul_address": "10.9.9.9",
			"__meta_consul_service_metadata_selvedge_id": test.id, "__meta_consul_service": service, "__meta_consul_node": "host",
		})
		got, keep := relabel.Process(found, jobs[test.job]...)
		if keep != (test.want != "") || keep && got.Get("__address__") != test.want {
			t.Errorf("%+v: %v, %v", test, keep, got)
		}
		if keep && test.id != "" && (got.Get("member") != test.id || got.Get("consul_service") != "chat" || got.Get("service") != "") {
			t.Errorf("%+v: %v", test, got)
		}
	}

	if len(jobs) != 3 || len(named) != 1 || !slices.Equal(named["selvedge-bridge"], []string{"bridges.yaml"}) {
		t.Fatalf("%d jobs, files %v", len(jobs), named)
	}
	var bridges []*targetgroup.Group
	if err := yamlv2.UnmarshalStrict([]byte(file(t, "prometheus/bridges.yaml")), &bridges); err != nil || len(bridges) != 1 || len(bridges[0].Targets) < 2 {
		t.Fatalf("%v, %v", bridges, err)
	}
	for _, target := range bridges[0].Targets {
		found := labels.FromMap(map[string]string{"__address__": string(target["__address__"])})
		got, keep := relabel.Process(found, jobs["selvedge-bridge"]...)
		host, port, err := net.SplitHostPort(got.Get("__address__"))
		if err != nil || !keep || got.Get("member") != host || !strings.Contains(file(t, "config/bridge.yaml"), `admin: {addr: ":`+port+`"`) {
			t.Errorf("%v: %v, %v, %v; bridges listen elsewhere, or have no name", target, keep, got, err)
		}
	}
}

// Each query of the dashboard asks for what there is.
func TestDashboard(t *testing.T) {
	var board struct {
		Panels []struct {
			Title, Type string
			GridPos     struct{ X, Y, W, H int }
			Targets     []struct{ Expr, RefID string }
		}
		Templating struct {
			List []struct{ Name, Type, Query string }
		}
		Annotations struct{ List []struct{ Name, Expr string } }
	}
	if err := json.Unmarshal([]byte(file(t, "grafana/selvedge.json")), &board); err != nil {
		t.Fatal(err)
	}
	all := metrics(t)
	queries := 0
	for i, p := range board.Panels {
		for _, target := range p.Targets {
			check(t, p.Title, target.Expr, all)
			queries++
		}
		if len(p.Targets) == 0 && p.Type != "row" {
			t.Errorf("%s shows nothing", p.Title)
		}
		for _, other := range board.Panels[:i] {
			a, b := p.GridPos, other.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H || a.X+a.W > 24 {
				t.Errorf("%s lies over %s, or off the page", p.Title, other.Title)
			}
		}
	}
	for _, a := range board.Annotations.List {
		check(t, a.Name, a.Expr, all)
	}
	for _, v := range board.Templating.List {
		if v.Type != "query" {
			continue
		}
		m := regexp.MustCompile(`^label_values\((\w+), (\w+)\)$`).FindStringSubmatch(v.Query)
		if m == nil {
			t.Errorf("variable %s: %s", v.Name, v.Query)
		} else if _, has := all[m[1]].labels[m[2]]; !has {
			t.Errorf("variable %s: no label %s of %s", v.Name, m[2], m[1])
		}
	}
	if queries < 30 {
		t.Errorf("%d queries", queries)
	}
}
