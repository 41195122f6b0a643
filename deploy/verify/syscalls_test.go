package verify

import (
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The units' filters let everything pass that an edge, a backend and a bridge ask of the kernel, from their start to the end of their drain, with a
// session, a push, a reload, a state on disk and a message from a broker between.
func TestSystemCalls(t *testing.T) {
	dir := t.TempDir()
	ports := freePorts(t, 7)
	config := filepath.Join(dir, "config.yaml")
	text := strings.NewReplacer("EDGE", ports[0], "ADMIN", ports[1], "BACKEND", ports[2], "RPC", ports[3], "DIR", dir).Replace(
		"listen: [{addr: EDGE}]\nadmin: {addr: ADMIN}\nregistry: DIR/registry.yaml\nstate_dir: DIR\ndrain_delay: 10ms\ndrain_timeout: 1s\n" +
			"backend: {id: b1, listen: BACKEND, rpc: {addr: RPC}}\n")
	registry := "services: {default: [{id: b1, addr: " + ports[2] + ", rpc: " + ports[3] + "}]}\n"
	// The unit's bridge reads RabbitMQ; to the kernel one broker is a connection as the other, and Redis starts at once.
	bridgeConfig := filepath.Join(dir, "bridge.yaml")
	bridgeText := "bridge: {redis: \"redis://" + ports[5] + "\", stream: chat, payload: \"json:text\"}\nadmin: {addr: " + ports[6] + "}\nregistry: " + dir + "/registry.yaml\n"
	for name, text := range map[string]string{config: text, bridgeConfig: bridgeText, filepath.Join(dir, "registry.yaml"): registry} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	backend := traced(t, "backend", "--config", config, "--admin", ports[4])
	edge := traced(t, "edge", "--config", config)
	startRedis(t, ports[5])
	bridge := traced(t, "bridge", "--config", bridgeConfig)
	deadline := time.Now().Add(60 * time.Second)
	for _, admin := range []string{ports[1], ports[4], ports[6]} {
		for {
			out, err := exec.Command(binary(t), "health", "--admin", admin).CombinedOutput()
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("not ready: %s", out)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	session, err := net.Dial("tcp", ports[0])
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	_ = session.SetDeadline(time.Now().Add(30 * time.Second))
	_, err = session.Write([]byte("GET /ws?user=alice HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 12)
	if _, err := session.Read(head); err != nil || string(head) != "HTTP/1.1 101" {
		t.Fatalf("%q, %v", head, err)
	}
	if out := selvedge(t, nil, "push", "--to", "alice", "--text", strings.Repeat("x", 100_000), "--via", ports[1]); !strings.Contains(out, "delivered to 1 session") {
		t.Error(out)
	}
	edge.signal(syscall.SIGHUP)
	awaitMetric(t, ports[1], `selvedge_edge_config_reloads_total{result="ok"} 1`)
	tellRedis(t, ports[5], "XADD chat * user alice text hello")
	awaitMetric(t, ports[6], `selvedge_bridge_messages_total{outcome="delivered",service="default",source="redis_stream"} 1`)
	bridge.end()
	session.Close()
	edge.end()
	backend.end()
	for role, p := range map[string]*trace{"edge": edge, "backend": backend, "bridge": bridge} {
		allowed := filter(t, "selvedge-"+role+".service")
		calls := p.calls()
		if len(calls) < 30 {
			t.Errorf("%s: %d kinds of system calls were seen", role, len(calls))
		}
		for _, call := range calls {
			if !allowed[call] {
				t.Errorf("%s calls %s, which its unit does not let it", role, call)
			}
		}
	}
}

// awaitMetric waits until a process shows a line among its metrics.
func awaitMetric(t *testing.T, admin, line string) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		answer, err := http.Get("http://" + admin + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\n"+line+"\n") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", line)
		}
	}
}

// startRedis runs one that keeps nothing on disk, until the test ends.
func startRedis(t *testing.T, addr string) {
	t.Helper()
	host, port, _ := strings.Cut(addr, ":")
	cmd := exec.Command("redis-server", "--bind", host, "--port", port, "--save", "", "--dir", t.TempDir())
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v; make deps installs it", err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
}

// tellRedis gives it a command, which must be taken.
func tellRedis(t *testing.T, addr, command string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := conn.Write([]byte(command + "\r\n")); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 64)
	if n, err := conn.Read(answer); err != nil || answer[0] == '-' {
		t.Fatalf("%s: %q, %v", command, answer[:n], err)
	}
}

// trace is a process whose system calls strace writes down.
type trace struct {
	t    *testing.T
	cmd  *exec.Cmd
	file string
}

func traced(t *testing.T, args ...string) *trace {
	t.Helper()
	p := &trace{t: t, file: filepath.Join(t.TempDir(), "calls")}
	p.cmd = exec.Command("strace", append([]string{"-f", "-qq", "-e", "signal=none", "-o", p.file, binary(t)}, args...)...)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("%v; make deps installs it", err)
	}
	t.Cleanup(func() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) })
	return p
}

// signal goes to the group, strace with it, which leaves it to the process.
func (p *trace) signal(s syscall.Signal) {
	if err := syscall.Kill(-p.cmd.Process.Pid, s); err != nil {
		p.t.Errorf("%v: %v", s, err)
	}
}

func (p *trace) end() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	ended := make(chan error, 1)
	go func() { ended <- p.cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		p.t.Fatalf("%v does not end", p.cmd.Args)
	}
}

func (p *trace) calls() []string {
	p.t.Helper()
	text, err := os.ReadFile(p.file)
	if err != nil {
		p.t.Fatal(err)
	}
	var calls []string
	for _, m := range regexp.MustCompile(`(?m)^\d+ +(\w+)\(`).FindAllStringSubmatch(string(text), -1) {
		calls = append(calls, m[1])
	}
	slices.Sort(calls)
	return slices.Compact(calls)
}

// filter is what the SystemCallFilter= lines of a unit let pass: the first list, less those that begin with ~.
func filter(t *testing.T, unit string) map[string]bool {
	t.Helper()
	allowed := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^SystemCallFilter=(~?)(.*)$`).FindAllStringSubmatch(file(t, "systemd/"+unit), -1) {
		for _, set := range strings.Fields(m[2]) {
			for _, call := range callsOf(t, set) {
				allowed[call] = m[1] == ""
			}
		}
	}
	return allowed
}

// callsOf is what systemd means by a set such as @system-service.
func callsOf(t *testing.T, set string) (calls []string) {
	t.Helper()
	if !strings.HasPrefix(set, "@") {
		return []string{set}
	}
	out, err := exec.Command("systemd-analyze", "syscall-filter", "--no-pager", set).Output()
	if err != nil {
		t.Fatalf("systemd-analyze syscall-filter %s: %v", set, err)
	}
	for _, line := range strings.Split(string(out), "\n")[1:] {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			calls = append(calls, callsOf(t, line)...)
		}
	}
	return calls
}

func freePorts(t *testing.T, n int) (addrs []string) {
	t.Helper()
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		addrs = append(addrs, ln.Addr().String())
	}
	return addrs
}
