package edge

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/selvedge/selvedge/internal/discovery"
)

// The library is there whatever the routes are, and for those alone who may connect.
func TestLibrary(t *testing.T) {
	registry := discovery.NewMemory()
	e := start(t, Config{Membership: Membership{Memory: registry}, Routes: []Route{{Path: "/ws"}}})
	get := "GET /.well-known/selvedge/client.js HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
	answer := e.send(get).head()
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != "text/javascript; charset=utf-8" ||
		answer.Header.Get("ETag") == "" || answer.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("answered %s %v", answer.Status, answer.Header)
	}
	again := strings.Replace(get, "Host: a", "Host: a\r\nIf-None-Match: "+answer.Header.Get("ETag"), 1)
	if answer := e.send(again).head(); answer.StatusCode != http.StatusNotModified {
		t.Errorf("asked again, answered %s", answer.Status)
	}
	if text := e.send(strings.Replace(get, "GET", "POST", 1)).refused(405); !strings.Contains(text, "GET") {
		t.Error(text)
	}
	e.send(strings.Replace(get, "client.js", "client.mjs", 1)).refused(404)
	for metric, want := range map[string]string{
		`selvedge_edge_requests_total{code="200",service=""}`: "1", `selvedge_edge_requests_total{code="304",service=""}`: "1",
		`selvedge_edge_requests_total{code="4xx",service=""}`: "1",
	} {
		if got := e.metric(metric); got != want {
			t.Errorf("%s is %s, want %s", metric, got, want)
		}
	}

	closed := start(t, Config{Membership: Membership{Memory: registry}, Routes: []Route{{Path: "/ws"}},
		Admission: Admission{Deny: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}})
	closed.send(get).refused(403)
}
