package systemtest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/testkit"
)

// Listeners come from systemd by name, and it is told of each state.
func TestSystemd(t *testing.T) {
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "edge.yaml")
	writeFile(t, config, "backends: b1=127.0.0.1:1\nlisten: [{addr: \"127.0.0.1:1\"}]\nadmin: {addr: \"127.0.0.1:1\"}\ndrain_delay: 10ms\n") // nobody may listen there
	states, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer states.Close()

	// The variable that says whom the sockets are for needs the process's own id.
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, path, "edge", "--config", config, "--log-format", "json")
	cmd.Env = append(os.Environ(), "LISTEN_FDS=2", "LISTEN_FDNAMES=admin:http", "NOTIFY_SOCKET="+filepath.Join(dir, "notify"))
	var addrs []string
	for range 2 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		file, err := ln.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close(); ln.Close() })
		cmd.ExtraFiles = append(cmd.ExtraFiles, file)
		addrs = append(addrs, ln.Addr().String())
	}
	p := startCommand(t, "edge of systemd", cmd)
	state := func(want string) {
		t.Helper()
		buf := make([]byte, 1000)
		_ = states.SetReadDeadline(time.Now().Add(20 * time.Second))
		n, err := states.Read(buf)
		if got := string(buf[:n]); err != nil || !strings.HasPrefix(got, want) {
			t.Fatalf("systemd is told %q, %v; want %q", got, err, want)
		}
	}
	state("READY=1")
	entry := p.waitLog("edge is listening")
	if entry["admin"] != addrs[0] || entry["addr"] != addrs[1] {
		t.Errorf("%v; want admin at %s and clients at %s", entry, addrs[0], addrs[1])
	}
	if status, _, _ := ask(t, addrs[1], "/?user=a", ""); status != 503 {
		t.Errorf("clients' socket: %d", status)
	}
	testkit.Eventually(t, 10*time.Second, func() bool { status, _, _ := ask(t, addrs[0], "/healthz", ""); return status == 200 }, "the admin socket answers")
	p.signal(syscall.SIGHUP)
	state("RELOADING=1\nMONOTONIC_USEC=")
	state("READY=1")
	p.signal(syscall.SIGTERM)
	state("STOPPING=1")
	if code := p.wait(20 * time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// A port that is taken is the machine's fault (1), a configuration that is wrong the operator's (2).
func TestExitCodes(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, stderr, code := run(t, "", "edge", "--listen", ln.Addr().String(), "--admin", "off", "--backends", "b1=127.0.0.1:1")
	if code != 1 || !strings.Contains(stderr, "choose another port") {
		t.Errorf("a port taken: exit code %d, %s", code, stderr)
	}
	config := filepath.Join(t.TempDir(), "edge.yaml")
	writeFile(t, config, "backends: b1=127.0.0.1:1\nroutes:\n  - {path: nonsense}\n")
	for _, args := range [][]string{{"edge", "--config", config}, {"check", "--config", config}} {
		if _, stderr, code := run(t, "", args...); code != 2 || !strings.Contains(stderr, config+":3: routes[0].path") {
			t.Errorf("%v: exit code %d, %s", args, code, stderr)
		}
	}
}
