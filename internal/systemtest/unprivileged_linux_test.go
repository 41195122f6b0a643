package systemtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/selvedge/selvedge/internal/testkit"
)

// nobody is a user without rights, whom Debian has too.
const nobody = 65534

// An edge and a backend of a user without rights, groups and capabilities, who can gain none, do all that others do: sessions, pushes,
// splice, addresses to connect from, state and access log in folders of theirs. Nothing of it is as much as warned of.
func TestUnprivileged(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: every test shows it")
	}
	dir := theirs(t)
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "selvedge") // the checkout may be out of their reach
	if err := os.WriteFile(program, text, 0o755); err != nil {
		t.Fatal(err)
	}
	startAs := func(name string, args ...string) *process {
		return startCommand(t, name, exec.Command("setpriv", append([]string{"--reuid", fmt.Sprint(nobody), "--regid", fmt.Sprint(nobody),
			"--clear-groups", "--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--",
			program, args[0], "--log-format", "json", "--state-dir", filepath.Join(dir, name)}, args[1:]...)...))
	}
	consul := testkit.StartConsul(t)
	backend := startAs("backend", "backend", "--id", "b1", "--listen", "127.0.0.1:0", "--rpc", "127.0.0.1:0", "--consul", consul.Addr)
	backend.waitLog("serving")
	config := filepath.Join(dir, "edge.yaml")
	accessLog := filepath.Join(dir, "access.log")
	writeFile(t, config, "listen: [{addr: \"127.0.0.1:0\"}]\nadmin: {addr: \"127.0.0.1:0\"}\nengine: splice\naccess_log: {path: "+accessLog+"}\n"+
		"services: {default: {source_addresses: [127.0.0.2]}}\n")
	if err := os.Chown(config, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	e := startAs("edge", "edge", "--config", config, "--consul", consul.Addr)
	entry := e.waitLog("edge is listening")
	edge := &frontDoor{e, entry["addr"].(string), entry["admin"].(string)}
	edge.awaitReady()
	for _, p := range []*process{backend, e} {
		p.hasNoRights()
	}

	conn, early, _, err := ws.Dialer{Timeout: 10 * time.Second}.Dial(t.Context(), "ws://"+edge.addr+"/echo?user=alice")
	if err != nil || early != nil {
		t.Fatal(err, early)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	said := strings.Repeat("x", 100_000) // in pieces, and enough of it for a pipe
	for range 3 {
		if err := ws.WriteFrame(conn, ws.MaskFrame(ws.NewTextFrame([]byte(said)))); err != nil {
			t.Fatal(err)
		}
		if _, payload, err := readFrame(conn); err != nil || string(payload) != said {
			t.Fatalf("%d bytes came back, %v", len(payload), err)
		}
	}
	if got, code := runJSON[pushed](t, "push", "--to", "alice", "--text", "hi", "--via", edge.admin); code != 0 || got[0].Outcome != "DELIVERED" {
		t.Errorf("push: exit code %d, %+v", code, got)
	}
	if _, payload, err := readFrame(conn); err != nil || string(payload) != "hi" {
		t.Errorf("%q arrived, %v", payload, err)
	}
	if spliced := edge.metric("selvedge_edge_tunnel_bytes_total", `engine="splice"`); spliced < 600_000 {
		t.Errorf("%.0f bytes were spliced", spliced)
	}
	conn.Close()
	testkit.Eventually(t, 10*time.Second, func() bool {
		lines, err := os.ReadFile(accessLog)
		return err == nil && strings.Contains(string(lines), `"/echo"`)
	}, "the session to be in the access log")

	for _, p := range []*process{e, backend} {
		p.signal(syscall.SIGTERM)
		if code := p.wait(20 * time.Second); code != 0 {
			t.Errorf("%s: exit code %d", p.name, code)
		}
		if loud := regexp.MustCompile(`.*"level":"(warn|error|fatal)".*`).FindString(p.tail(1000)); loud != "" {
			t.Errorf("%s is not content: %s", p.name, loud)
		}
		if kept, err := os.ReadDir(filepath.Join(dir, p.name)); err != nil || len(kept) == 0 {
			t.Errorf("%s keeps no state: %v", p.name, err)
		}
	}
}

// theirs makes a folder of a user without rights, with one in it for the state of each process.
func theirs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil { // the test's own, which the user must pass through
		t.Fatal(err)
	}
	for _, name := range []string{"", "edge", "backend"} {
		folder := filepath.Join(dir, name)
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(folder, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// hasNoRights fails unless the kernel says that the process has no rights and cannot gain any.
func (p *process) hasNoRights() {
	p.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	fields := strings.Join(strings.Fields(string(status)), " ")
	id := fmt.Sprint(nobody)
	for _, want := range []string{"Uid: " + strings.Join([]string{id, id, id, id}, " "), "Gid: " + strings.Join([]string{id, id, id, id}, " "), "Groups: NStgid",
		"CapInh: 0000000000000000", "CapPrm: 0000000000000000", "CapEff: 0000000000000000", "CapBnd: 0000000000000000",
		"CapAmb: 0000000000000000", "NoNewPrivs: 1"} {
		if !strings.Contains(fields, want) {
			p.t.Errorf("%s is not %q:\n%s", p.name, want, status)
		}
	}
}
