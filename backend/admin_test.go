package backend_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/selvedge/selvedge/backend"
)

func get(t *testing.T, url string, token ...string) (int, string) {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Close = true
	for _, token := range token {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// roundTrip sends one raw request to a server made of handler.
func roundTrip(t *testing.T, handler http.Handler, request string) (int, http.Header) {
	t.Helper()
	server := httptest.NewServer(handler)
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode, response.Header
}

func TestAdminListener(t *testing.T) {
	c := newCluster(t, 1, func(cfg *backend.Config) { cfg.Admin, cfg.AdminToken = "127.0.0.1:0", "s3cret" })
	c.members[0].open(t, "alice")
	base := "http://" + c.members[0].AdminAddr().String()
	for _, test := range []struct {
		path     string
		token    []string
		status   int
		contains string
	}{
		{"/healthz", nil, 200, "ok"}, {"/readyz", nil, 200, ""},
		{"/metrics", nil, 401, "unauthenticated"}, {"/metrics", []string{"wrong"}, 401, "unauthenticated"},
		{"/metrics", []string{"s3cret"}, 200, `selvedge_backend_sessions{service="default"} 1`},
		{"/debug/pprof/cmdline", nil, 401, ""}, {"/debug/pprof/cmdline", []string{"s3cret"}, 200, "backend"},
		{"/nothing", []string{"s3cret"}, 404, ""},
	} {
		status, text := get(t, base+test.path, test.token...)
		if status != test.status || !strings.Contains(text, test.contains) {
			t.Errorf("%s with %q: %d %.100q", test.path, test.token, status, text)
		}
	}
}
