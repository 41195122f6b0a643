package systemtest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/testkit"
)

// What slowhttptest says of a server, between colours.
var (
	serviceAvailable = regexp.MustCompile(`service available:.*YES`)
	serviceGone      = regexp.MustCompile(`service available:.*NO\b`)
)

// slowhttptest holds the edge with heads, bodies and readers that are slow. Another client is served all the time, and when it is gone the
// edge holds no more than before.
func TestSlowHTTP(t *testing.T) {
	path, err := exec.LookPath("slowhttptest")
	if err != nil {
		t.Fatal("slowhttptest is not installed; run: make deps")
	}
	page := strings.Repeat("x", 1<<20)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			_, _ = io.WriteString(w, page) // to a reader who may be gone
		}
	}))
	t.Cleanup(backend.Close)
	backend.Config.SetKeepAlivesEnabled(false) // idle connections would count as held
	edge := startEdge(t, "edge", "--backends", "b1="+backend.Listener.Addr().String())
	edge.awaitReady()
	http.DefaultClient.CloseIdleConnections()
	url := "http://" + edge.addr + "/?user=slow"
	const connections = 300
	for name, args := range map[string][]string{
		"slow heads":   {"-H", "-i", "1"},
		"slow bodies":  {"-B", "-i", "1", "-s", "100000"},
		"slow readers": {"-X", "-w", "512", "-y", "1024", "-n", "1", "-z", "32"},
	} {
		t.Run(name, func(t *testing.T) {
			before := edge.usage()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			slow := startCommand(t, name, exec.CommandContext(ctx, path, append(args, "-c", fmt.Sprint(connections), "-r", fmt.Sprint(connections), "-l", "4",
				"-p", "3", "-v", "2", "-u", url)...))
			most, served := 0, 0
			var slowest time.Duration
			for !slow.ended() {
				asked := time.Now()
				status, _, body := ask(t, edge.addr, "/?user=other", "Connection: close\r\n")
				if status != http.StatusOK || len(body) != len(page) {
					t.Fatalf("another client is answered %d with %d bytes", status, len(body))
				}
				slowest = max(slowest, time.Since(asked))
				served++
				most = max(most, edge.usage().descriptors)
				select {
				case <-slow.done:
				case <-time.After(50 * time.Millisecond):
				}
			}
			t.Logf("%d descriptors at first, %d at most; another client was served %d times, in %v or less", before.descriptors, most, served, ms(slowest))
			if most < before.descriptors+connections/2 {
				t.Errorf("slowhttptest did not hold the edge:\n%s", slow.tail(30))
			}
			if out := slow.tail(1000); !serviceAvailable.MatchString(out) || serviceGone.MatchString(out) {
				t.Errorf("to slowhttptest the service is not available:\n%s", slow.tail(30))
			}
			testkit.Eventually(t, 20*time.Second, func() error {
				if now := edge.usage(); now.descriptors > before.descriptors || now.goroutines > before.goroutines {
					return fmt.Errorf("%+v, at the start %+v", now, before)
				}
				return nil
			}, "the edge to hold no more than before")
		})
	}
}
