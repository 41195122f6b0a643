package edge

import (
	"net/http"
	"strings"
	"testing"

	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/testkit"
)

func TestAdminPaths(t *testing.T) {
	push := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("push " + r.URL.Path)) })
	for _, token := range []string{"", "s3cret"} {
		e := start(t, Config{Name: "e1", Membership: members("127.0.0.1:1"), AdminHandler: push, Admin: Admin{Token: token}})
		for path, want := range map[string]string{
			"/":                                  "<title>Selvedge</title>",
			"/page/user?user=alice":              `"successors":["b0"]`,
			"/metrics":                           "selvedge_edge_upgrades_total",
			"/healthz":                           "ok",
			"/readyz":                            "ready",
			"/debug/pprof/":                      "goroutine",
			"/selvedge.push.v1.PushService/Push": "push /selvedge.push.v1.PushService/Push",
		} {
			if code, body := e.admin("GET", path, token); code != 200 || !strings.Contains(body, want) {
				t.Errorf("token %q: %s: %d %.200s", token, path, code, body)
			}
			for _, wrong := range []string{"", "s3cre", "s3crets"} {
				code, _ := e.admin("GET", path, wrong)
				open := token == "" || path == "/healthz" || path == "/readyz" || path == "/" // the page's file holds no data
				if (code == 200) != open || !open && code != 401 {
					t.Errorf("token %q, sent %q: %s: %d", token, wrong, path, code)
				}
			}
		}
		if code, _ := e.admin("GET", "/nothing", token); code != 404 {
			t.Errorf("/nothing: %d", code)
		}
	}
}

func TestAdminRefusesOtherSites(t *testing.T) {
	pushed := false
	e := start(t, Config{Membership: members(), AdminHandler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { pushed = true })})
	r, err := http.NewRequest(http.MethodPost, "http://"+e.AdminAddr().String()+"/selvedge.push.v1.PushService/Push", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Close = true
	r.Header.Set("Origin", "https://elsewhere.test")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusForbidden || pushed {
		t.Errorf("a page of another site got %s", answer.Status)
	}
}

func TestReadiness(t *testing.T) {
	registry := discovery.NewMemory()
	e := start(t, Config{Membership: Membership{Memory: registry}})
	if code, body := e.admin("GET", "/readyz", ""); code != 503 || !strings.Contains(body, "no service has a member") {
		t.Errorf("without a member: %d %s", code, body)
	}
	registry.Put(DefaultService, discovery.Member{ID: "b0", Addr: "127.0.0.1:1", Weight: 1})
	testkit.Eventually(t, patience, func() bool { code, _ := e.admin("GET", "/readyz", ""); return code == 200 }, "ready with a member")
	registry.Put(DefaultService, discovery.Member{ID: "b0", Addr: "127.0.0.1:1", Weight: 1, State: discovery.Draining})
	testkit.Eventually(t, patience, func() bool { code, _ := e.admin("GET", "/readyz", ""); return code == 503 }, "not ready when it drains")
}

// Every metric of the contract is there before anything has happened.
func TestMetricsFromTheStart(t *testing.T) {
	e := start(t, Config{Membership: members("127.0.0.1:1")})
	for name, want := range map[string]string{
		`selvedge_edge_sessions{service="default"}`:                                                                      "0",
		`selvedge_edge_sessions_to_move{service="default"}`:                                                              "0",
		`selvedge_edge_upgrades_total{code="101",service="default"}`:                                                     "0",
		`selvedge_edge_upgrades_total{code="503",service="default"}`:                                                     "0",
		`selvedge_edge_upgrade_seconds_count{service="default"}`:                                                         "0",
		`selvedge_edge_session_closes_total{reason="client_closed",service="default"}`:                                   "0",
		`selvedge_edge_tunnel_bytes_total{direction="to_client",engine="splice"}`:                                        "0",
		`selvedge_edge_tunnel_bytes_total{direction="to_backend",engine="copy"}`:                                         "0",
		`selvedge_edge_dial_failures_total{service="default"}`:                                                           "0",
		`selvedge_edge_refusals_total{reason="bad_user"}`:                                                                "0",
		`selvedge_edge_accept_errors_total{reason="descriptors"}`:                                                        "0",
		`selvedge_ring_members{service="default"}`:                                                                       "1",
		`selvedge_ring_changes_total{service="default"}`:                                                                 "1",
		`selvedge_ring_info{digest="` + e.service(DefaultService).view.Snapshot().Ring.Digest() + `",service="default"}`: "1",
	} {
		if got := e.metric(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
