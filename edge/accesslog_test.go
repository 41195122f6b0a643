package edge

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/selvedge/selvedge/internal/testkit"
	"github.com/selvedge/selvedge/internal/tunnel"
)

// logged reads the lines of an access log as soon as there are n.
func logged(t *testing.T, path string, n int) (lines []map[string]any, raw string) {
	t.Helper()
	testkit.Eventually(t, patience, func() error {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if raw = string(text); strings.Count(raw, "\n") < n {
			return fmt.Errorf("%d lines, want %d", strings.Count(raw, "\n"), n)
		}
		return nil
	}, "the access log is written")
	for text := range strings.Lines(raw) {
		line := make(map[string]any)
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		lines = append(lines, line)
	}
	return lines, raw
}

// One line for each session and request, with what an operator asks for, and neither a query nor a user's id.
func TestAccessLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	backend := listenBackend(t, func(conn net.Conn, br *bufio.Reader, r *http.Request) {
		switch {
		case r.URL.Path == "/ws/no":
			say(conn, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
		case wantsWebSocket(r):
			say(conn, "%s", switched(r, ""))
			_, _ = io.CopyN(conn, br, 4)
		case r.URL.Path == "/broken":
			say(conn, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nfour")
		default:
			body, _ := io.ReadAll(r.Body)
			say(conn, "HTTP/1.1 201 Created\r\nContent-Length: 3\r\nConnection: close\r\n\r\n%03d", len(body))
		}
	})
	e := start(t, Config{
		Membership: members(backend), AccessLog: AccessLog{Path: path},
		Routes: []Route{{Path: "/ws"}, {Path: "/broken", Key: "none"}, {Path: "/u/", Key: "path:2"}, {Path: "/x", Key: "header:X-User"}},
	})
	hash := fmt.Sprintf("%016x", e.snapshot().Ring.Hash("alice"))

	ask := func(request string, status int) {
		t.Helper()
		if answer := e.send(request).head(); answer.StatusCode != status {
			t.Fatalf("%q: %s", request, answer.Status)
		}
	}
	steps := []struct {
		do   func()
		want map[string]any
	}{
		{func() {
			ask("POST /x/y?token=secret HTTP/1.1\r\nHost: a.test:80\r\nX-User: alice\r\nConnection: close\r\nContent-Length: 5\r\n\r\n12345", 201)
		}, map[string]any{"kind": "request", "status": 201., "method": "POST", "host": "a.test:80", "path": "/x/y", "service": "default", "backend": "b0",
			"user": hash, "client": "127.0.0.1", "bytes_from_client": 5., "bytes_to_client": 3., "reason": nil}},
		{func() { ask(get("/u/alice/room?token=secret"), 201) }, map[string]any{"path": "/u/...", "user": hash}},
		{func() { _, _ = io.ReadAll(e.send(get("/broken"))) }, map[string]any{"status": 200., "reason": "bad_answer", "user": nil, "bytes_to_client": 4.}},
		{func() { ask(get("/none"), 404) }, map[string]any{"status": 404., "reason": "no_route", "service": nil, "backend": nil,
			"upstream_seconds": nil}},
		{func() { ask(get("/x", "X-Long: "+strings.Repeat("x", DefaultHeaderBytes)), 431) }, map[string]any{"status": 431., "reason": "head_too_big"}},
		{func() { ask(upgradeTo("/ws/no?user=alice"), 403) }, map[string]any{"kind": "upgrade", "status": 403., "bytes_to_client": 2., "backend": "b0"}},
		{func() {
			c := e.send(upgradeTo("/ws?user=alice") + "four")
			c.head()
			_, _ = io.ReadAll(c.br)
			_ = c.Close()
		}, map[string]any{"kind": "session", "status": 101., "path": "/ws", "user": hash, "backend": "b0", "bytes_from_client": 4.,
			"bytes_to_client": 4., "reason": tunnel.BackendClosed.String()}},
	}
	for i, step := range steps {
		step.do()
		lines, raw := logged(t, path, i+1)
		for field, want := range step.want {
			if got := lines[i][field]; got != want {
				t.Errorf("%s is %v, want %v, in %v", field, got, want, lines[i])
			}
		}
		if id, _ := lines[i]["request_id"].(string); len(id) != 32 {
			t.Errorf("request_id %q", id)
		}
		if when, err := time.Parse(time.RFC3339Nano, fmt.Sprint(lines[i]["time"])); err != nil || time.Since(when) > time.Minute {
			t.Errorf("time %v", lines[i]["time"])
		}
		whole, _ := lines[i]["seconds"].(float64)
		if upstream, there := lines[i]["upstream_seconds"].(float64); whole <= 0 || there && (upstream <= 0 || upstream > whole) {
			t.Errorf("seconds %v, upstream_seconds %v", lines[i]["seconds"], lines[i]["upstream_seconds"])
		}
		for _, secret := range []string{"secret", "token", "alice"} {
			if strings.Contains(raw, secret) {
				t.Fatalf("%q is in the log: %s", secret, raw)
			}
		}
	}
}

// A log that has been renamed is let go; one that cannot be opened is not.
func TestAccessLogIsReopened(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path, moved := filepath.Join(dir, "access.log"), dir+"-moved"
	e := start(t, Config{Membership: members(), AccessLog: AccessLog{Path: path}})
	if err := e.ReopenLogs(); err != nil {
		t.Fatal(err)
	}
	ask := func() { e.send(get("/?user=a")).refused(503) }
	ask()
	logged(t, path, 1)
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	if err := e.ReopenLogs(); err == nil {
		t.Error("reopened in a directory that is not there")
	}
	ask()
	logged(t, filepath.Join(moved, "access.log"), 2)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := e.ReopenLogs(); err != nil {
		t.Fatal(err)
	}
	ask()
	logged(t, path, 1)
	if lines, _ := logged(t, filepath.Join(moved, "access.log"), 2); len(lines) != 2 {
		t.Errorf("%d lines in the old file", len(lines))
	}
}

// Whoever writes a line never waits, and what does not fit is counted.
func TestAccessLogIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(path, os.O_RDWR, 0) // so that both ends open at once; nobody reads yet
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	lost := prometheus.NewCounter(prometheus.CounterOpts{Name: "lost"})
	registry := prometheus.NewRegistry()
	registry.MustRegister(lost)
	f := newLogFile(path, zap.NewNop(), lost)
	if err := f.open(); err != nil {
		t.Fatal(err)
	}
	const n = 4 * logQueueBytes / 1024
	for i := range n {
		_, _ = f.Write(fmt.Appendf(nil, "%1023d\n", i))
	}
	metrics, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	missed := int(metrics[0].GetMetric()[0].GetCounter().GetValue())
	if missed == 0 || missed > n-logQueueBytes/1024 {
		t.Errorf("%d of %d lines lost", missed, n)
	}
	br := bufio.NewReader(reader)
	for i, last := 0, -1; i < n-missed; i++ {
		var number int
		text, err := br.ReadString('\n')
		if _, scanErr := fmt.Sscan(text, &number); err != nil || scanErr != nil || len(text) != 1024 || number <= last {
			t.Fatalf("line %d is %q, %v, %v, after %d", i, strings.TrimSpace(text), err, scanErr, last)
		}
		last = number
	}
	f.close()
}

// What the disk does not take is counted too.
func TestAccessLogOnAFullDisk(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip(err)
	}
	e := start(t, Config{Membership: members(), AccessLog: AccessLog{Path: "/dev/full"}})
	e.send(get("/?user=a")).refused(503)
	testkit.Eventually(t, patience, func() bool { return e.metric("selvedge_edge_access_log_lost_total") == "1" }, "the loss is counted")
}

func TestAccessLogSamples(t *testing.T) {
	n := 0
	for l, i := (&accessLog{sample: 0.25}), 0; i < 10_000; i++ {
		if l.takes() {
			n++
		}
	}
	if n < 2000 || n > 3000 {
		t.Errorf("%d of 10,000, want a quarter", n)
	}
}

// Without a line to write a session holds nothing for it.
func TestAccessLogCostsSessionsNothing(t *testing.T) {
	ended := func(tunnel.Summary) {}
	var l *accessLog
	x := new(exchange)
	if allocs := testing.AllocsPerRun(100, func() { ended = l.session(x, ended) }); allocs != 0 || l.takes() {
		t.Errorf("%v allocations", allocs)
	}
}

func TestAccessLogIsChecked(t *testing.T) {
	for _, cfg := range []AccessLog{{Path: "x", Sample: -1}, {Path: "x", Sample: 1.5}, {Sample: 0.5}} {
		if _, err := New(Config{Membership: members(), AccessLog: cfg}); err == nil || !strings.Contains(err.Error(), "access_log") {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	e, err := New(Config{Membership: members(), Listen: []Listener{{Addr: "127.0.0.1:0"}}, AccessLog: AccessLog{Path: "/does/not/exist/a.log"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "access_log.path") {
		t.Errorf("a log that cannot be opened: %v", err)
	}
}
