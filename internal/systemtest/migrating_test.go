package systemtest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/selvedge/selvedge/internal/testkit"
)

// TestMigrating runs the configurations that edge/MIGRATING.md sets side by side, in front of the same backends, and holds what both proxies
// do against each other.
func TestMigrating(t *testing.T) {
	text, err := os.ReadFile("../../edge/MIGRATING.md")
	if err != nil {
		t.Fatal(err)
	}
	for proxy, run := range map[string]func(t *testing.T, config string) (addr string){"nginx": runNginx, "haproxy": runHAProxy} {
		t.Run(proxy, func(t *testing.T) {
			pair := regexp.MustCompile("(?s)```" + proxy + "\n(.*?)```\n+```yaml\n(.*?)```").FindSubmatch(text)
			if pair == nil {
				t.Fatalf("MIGRATING.md has no %s example with the edge's beside it", proxy)
			}
			b1, b2 := newOldBackend(t, "b1"), newOldBackend(t, "b2")
			substitute := strings.NewReplacer("10.0.0.1:9000", b1.addr, "10.0.0.2:9000", b2.addr, "60s", "1s").Replace
			config := filepath.Join(t.TempDir(), "edge.yaml")
			writeFile(t, config, substitute(string(pair[2])))
			edge := startEdge(t, "edge", "--config", config)
			edge.awaitReady()
			sides := []side{{t, proxy, run(t, substitute(string(pair[1])))}, {t, "the edge", edge.addr}}
			for _, test := range alike {
				t.Run(test.name, func(t *testing.T) {
					var said []string
					for _, s := range sides {
						s.t = t
						said = append(said, test.ask(s))
					}
					if said[0] != said[1] {
						t.Errorf("\n%s: %s\n%s: %s", sides[0].name, said[0], sides[1].name, said[1])
					}
					if test.want != "" && said[0] != test.want {
						t.Errorf("both: %s\nwant: %s", said[0], test.want)
					}
				})
			}
			if strings.Contains(string(pair[2]), "health_check") {
				b2.ill.Store(true)
				for _, s := range sides {
					testkit.Eventually(t, 20*time.Second, func() error {
						if spread := s.spread(); spread != "b1" {
							return fmt.Errorf("%s brings users to %s", s.name, spread)
						}
						return nil
					}, "nobody is brought to a backend that fails its checks")
				}
			}
		})
	}
}

// alike is what both are asked, and what is compared of their answers.
var alike = []struct {
	name string
	ask  func(side) string
	want string
}{
	{"users are spread", func(s side) string { return s.spread() }, "b1 b2"},
	{"a user's sessions and requests reach one backend", func(s side) string {
		for i := range 12 {
			user := fmt.Sprint("user", i)
			first := s.request("/whoami?user="+user, "")
			for range 3 {
				if again := s.upgrade("/ws?user="+user, ""); again.backend != first.backend {
					return fmt.Sprintf("%s is at %s and %s", user, first.backend, again.backend)
				}
			}
		}
		return "one"
	}, "one"},
	{"another parameter changes nothing", func(s side) string {
		return fmt.Sprint(s.upgrade("/ws?a=1&user=alice&b=2", "").backend == s.upgrade("/ws?user=alice", "").backend)
	}, "true"},
	{"an upgrade", func(s side) string { return s.upgrade("/ws?user=alice&x=%20y", "").String() }, ""},
	{"what a backend sees of an upgrade", func(s side) string {
		return s.upgrade("/ws?user=alice", "Cookie: a=1; b=2\r\nX-Custom: v\r\nSec-WebSocket-Protocol: chat\r\nOrigin: http://o.example\r\n"+
			"Authorization: Bearer t\r\n").seen
	}, ""},
	{"what a backend sees of a request", func(s side) string {
		return s.request("/whoami?user=alice", "Cookie: a=1\r\nX-Custom: v\r\nTE: x\r\n").seen
	}, ""},
	{"what a client makes up", func(s side) string {
		return s.request("/whoami?user=alice", "X-Front: me\r\nX-Forwarded-Host: me\r\n").seen
	}, ""},
	{"what a client sees", func(s side) string {
		got := s.request("/whoami?user=alice", "")
		return fmt.Sprint(got.status, got.header["X-Powered-By"], got.header["X-Answer"], got.header["Set-Cookie"])
	}, "200 [] [yes] [one=1 two=2]"},
	{"a refused upgrade", func(s side) string {
		got := s.upgrade("/forbidden?user=alice", "")
		return fmt.Sprint(got.status, " ", got.body)
	}, "403 not you"},
	{"a backend's 503 to an upgrade", func(s side) string { return fmt.Sprint(s.upgrade("/full?user=alice", "").status) }, "503"},
	{"a body within the limit", func(s side) string { return s.post(1 << 20) }, "200 1048576"},
	{"a body above the limit", func(s side) string { return s.post(1<<20 + 1)[:3] }, "413"},
	{"a backend that takes too long", func(s side) string { return fmt.Sprint(s.request("/slow?user=alice", "").status) }, "504"},
	{"a host that is not there", func(s side) string { return fmt.Sprint(s.ask("GET", "other.example", "/whoami?user=alice", "").status) }, "404"},
	{"an upgrade of a host that is not there", func(s side) string {
		return fmt.Sprint(s.ask("GET", "other.example", "/ws?user=alice", upgradeFields).status)
	}, "404"},
	{"a path as it came", func(s side) string { return s.request("/a//b/%2e%2e/c%20d?user=alice&q=%2F+", "").path }, ""},
	{"a silent session outlives the timeout of requests", func(s side) string { return s.echo(1500 * time.Millisecond) }, "hello"},
}

// side is a proxy, as its clients see it.
type side struct {
	t    *testing.T
	name string
	addr string
}

// outcome is what came of a request, as far as it can be compared.
type outcome struct {
	status        int
	header        http.Header
	body          string
	backend, path string // who answered, and what path it read
	seen          string // the fields it read
}

func (d outcome) String() string {
	return fmt.Sprint(d.status, " ", d.header["Upgrade"], strings.ToLower(d.header.Get("Connection")), d.header["Sec-Websocket-Accept"], d.header["Sec-Websocket-Protocol"], d.path)
}

func (s side) request(target, fields string) outcome {
	return s.ask("GET", "chat.example.com", target, fields)
}

func (s side) upgrade(target, fields string) outcome { return s.request(target, upgradeFields+fields) }

func (s side) ask(method, host, target, fields string) outcome {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	return s.over(conn, fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", method, target, host, fields))
}

func (s side) over(conn net.Conn, request string) outcome {
	s.t.Helper()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	go func() { _, _ = io.WriteString(conn, request) }() // a large one may be refused before it is whole
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		s.t.Fatalf("%s: no answer: %v", s.name, err)
	}
	defer answer.Body.Close()
	d := outcome{status: answer.StatusCode, header: answer.Header}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(answer.Body) // a connection that is reset after a refusal says no less
		d.body = string(body)
	}
	d.backend, d.path, d.seen = answer.Header.Get("X-Backend"), answer.Header.Get("X-Path"), answer.Header.Get("X-Seen")
	return d
}

func (s side) post(size int) string {
	s.t.Helper()
	got := s.ask("POST", "chat.example.com", "/length?user=alice", fmt.Sprintf("Content-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size)))
	return fmt.Sprint(got.status, " ", got.body)
}

// spread lists the backends that a number of users reach.
func (s side) spread() string {
	s.t.Helper()
	var found []string
	for i := range 40 {
		found = append(found, s.request(fmt.Sprintf("/whoami?user=u%d", i), "").backend)
	}
	slices.Sort(found)
	return strings.Join(slices.Compact(found), " ")
}

// echo opens a session that is silent for a while, then sends and gets back a line.
func (s side) echo(silence time.Duration) string {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	if got := s.over(conn, "GET /ws?user=alice HTTP/1.1\r\nHost: chat.example.com\r\n"+upgradeFields+"\r\n"); got.status != 101 {
		s.t.Fatalf("%s answered %d", s.name, got.status)
	}
	_ = conn.SetReadDeadline(time.Now().Add(silence))
	if n, err := conn.Read(make([]byte, 1)); n > 0 || !os.IsTimeout(err) {
		return fmt.Sprint("the silence ends with ", err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(conn, "hello\n")
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(line)
}

// oldBackend is a service that knows nothing of the edge: a chat that echoes, and some plain pages. What it reads of a request is in its answer.
type oldBackend struct {
	addr string
	ill  atomic.Bool
}

// seenFields are those of which backends make something. What a proxy adds beyond them is its own.
var seenFields = []string{"Authorization", "Cookie", "Origin", "Sec-Websocket-Protocol", "Sec-Websocket-Version", "Te", "X-Custom",
	"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Front"}

func newOldBackend(t *testing.T, name string) *oldBackend {
	t.Helper()
	b := new(oldBackend)
	over := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := []string{"Host: " + r.Host}
		for _, field := range seenFields {
			if values := r.Header[field]; values != nil {
				seen = append(seen, field+": "+strings.Join(values, "|"))
			}
		}
		h := w.Header()
		h.Set("X-Backend", name)
		h.Set("X-Path", r.RequestURI)
		h.Set("X-Seen", strings.Join(seen, "; "))
		switch r.URL.Path {
		case "/healthz":
			if b.ill.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		case "/ws":
			upgrader := ws.HTTPUpgrader{Header: h, Protocol: func(p string) bool { return p == "chat" }}
			conn, buffered, _, err := upgrader.Upgrade(r, w)
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, buffered)
			}()
		case "/forbidden":
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, "not you")
		case "/full":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/length":
			n, err := io.Copy(io.Discard, r.Body)
			if err == nil {
				_, _ = fmt.Fprint(w, n)
			}
		case "/slow":
			select {
			case <-r.Context().Done():
			case <-over:
			}
		default:
			h["X-Answer"], h["X-Powered-By"], h["Set-Cookie"] = []string{"yes"}, []string{"us"}, []string{"one=1", "two=2"}
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(over) })
	b.addr = server.Listener.Addr().String()
	return b
}

// awaitReady waits until the edge says that it may be sent clients.
func (f *frontDoor) awaitReady() {
	f.t.Helper()
	testkit.Eventually(f.t, 20*time.Second, func() error {
		answer, err := http.Get("http://" + f.admin + "/readyz")
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("/readyz answers %s", answer.Status)
		}
		return nil
	}, "the edge to be ready")
}

func runNginx(t *testing.T, config string) string {
	t.Helper()
	dir := t.TempDir()
	addr := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	var paths strings.Builder
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&paths, "%s_temp_path %s;", kind, filepath.Join(dir, kind))
	}
	config = strings.ReplaceAll(config, "listen 80", "listen "+addr)
	config = strings.Replace(config, "http {", "http { access_log off; "+paths.String(), 1)
	writeFile(t, filepath.Join(dir, "nginx.conf"), "daemon off; worker_processes 1; error_log stderr; pid "+filepath.Join(dir, "pid")+";\n"+config)
	return runProxy(t, addr, "nginx", "-p", dir, "-c", filepath.Join(dir, "nginx.conf"), "-e", "stderr")
}

func runHAProxy(t *testing.T, config string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	addr := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	writeFile(t, file, strings.Replace(config, "bind :80", "bind "+addr, 1))
	return runProxy(t, addr, "haproxy", "-db", "-f", file)
}

// runProxy runs another proxy until the test ends, and waits until it listens at addr.
func runProxy(t *testing.T, addr, command string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(command)
	if err != nil {
		if path = "/usr/sbin/" + command; exec.Command(path, "-v").Run() != nil {
			t.Fatalf("no %s to compare with; `make deps` installs it", command)
		}
	}
	cmd := exec.Command(path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // its workers end with it
	p := startCommand(t, command, cmd)
	testkit.Eventually(t, 20*time.Second, func() error {
		select {
		case <-p.done:
			return fmt.Errorf("it has ended: %s", p.tail(5))
		default:
		}
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err
	}, command+" to listen")
	return addr
}
