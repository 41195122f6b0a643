package systemtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvedge/selvedge/internal/testkit"
)

// insideVariable tells the test binary that it runs in namespaces of its own.
const insideVariable = "SELVEDGE_TEST_INSIDE"

// TestReadme runs every command of the README as it is written, in order, in a checkout in which nothing was built yet, and holds what
// they print against what the README says one sees. The commands use the default ports and kill processes by name, so all of it happens in network and
// process namespaces of its own.
func TestReadme(t *testing.T) { apart(t, tour) }

// apart runs a test in network, process and mount namespaces of its own, with loopback up.
func apart(t *testing.T, body func(t *testing.T)) {
	t.Helper()
	if os.Getenv(insideVariable) != "" {
		if err := errors.Join(loopbackUp(), ownProc()); err != nil {
			t.Fatal(err)
		}
		body(t)
		return
	}
	if _, err := binary(); err != nil { // outside: modules may have to be fetched
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=8m")
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// freshCheckout copies what a clone would have to a folder of its own.
func freshCheckout(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	list := exec.Command("git", "ls-files", "-co", "--exclude-standard", "-z")
	list.Dir = "../.."
	names, err := list.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(names), "\x00"), "\x00") {
		from, to := filepath.Join("../..", name), filepath.Join(dir, name)
		info, err := os.Stat(from)
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted, and not committed yet
		}
		text, readErr := os.ReadFile(from)
		if err := errors.Join(err, readErr, os.MkdirAll(filepath.Dir(to), 0o755)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, text, info.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("git", "-C", dir, "init", "-q").CombinedOutput(); err != nil { // make asks git for the sources
		t.Fatalf("git init: %v\n%s", err, out)
	}
	return dir
}

// consulFolder is where this checkout has built Consul, if it has: the tour need not build it once more.
func consulFolder(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../bin/consul")
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(dir)
}

// tour walks through the README of a fresh checkout. Where it says to open two tabs, two devices connect.
func tour(t *testing.T) {
	dir := freshCheckout(t)
	t.Setenv("PATH", os.Getenv("PATH")+":"+consulFolder(t))
	steps := readSteps(t, filepath.Join(dir, "README.md"))
	tabs := func() *crowd { return online(t, []string{"alice", "bob"}, 1, &frontDoor{addr: "127.0.0.1:8080"}) }

	if steps[0].commands != "make run\n" {
		t.Fatalf("the tour begins with %q", steps[0].commands)
	}
	cmd := exec.Command("make", "-C", dir, "run")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // as a terminal would, for Ctrl-C
	dev := startCommand(t, "make run", cmd)
	dev.waitLineWithin(3*time.Minute, "banner's end", func(line string) bool { return strings.HasPrefix(line, "Ctrl-C") })
	first := tabs()
	shell := newShell(t, dir)
	next := 1
	for ; !strings.Contains(steps[next].commands, "consul"); next++ {
		shell.run(steps[next])
	}
	first.close()
	dev.signal(syscall.SIGINT)
	dev.wait(20 * time.Second)

	shell.run(steps[next])
	second := tabs()
	for _, step := range steps[next+1:] {
		shell.run(step)
		if strings.Contains(step.commands, "-9") {
			testkit.Eventually(t, 5*time.Second, func() bool {
				alice, bob := second.devices[0], second.devices[1]
				return len(alice.ends()) == 0 && len(bob.ends()) == 1 && bob.held() != "" && bob.held() != "b2"
			}, "bob to be back on another backend, and alice to be untouched")
		}
	}
	second.close()
	shell.end()
}

// step is a block of commands, and what the README says that they print.
type step struct{ commands, sees string }

var block = regexp.MustCompile("(?s)```(sh|text)\n(.*?)```")

func readSteps(t *testing.T, path string) []step {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var steps []step
	for _, m := range block.FindAllSubmatch(text, -1) {
		if string(m[1]) == "sh" {
			steps = append(steps, step{commands: string(m[2])})
		} else {
			steps[len(steps)-1].sees = string(m[2])
		}
	}
	if len(steps) < 5 {
		t.Fatalf("the README has %d blocks of commands", len(steps))
	}
	return steps
}

// shell is one bash that runs block after block, so that jobs and variables last.
type shell struct {
	t     *testing.T
	in    *os.File
	p     *process
	count int
}

func newShell(t *testing.T, dir string) *shell {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash")
	cmd.Dir, cmd.Stdin = dir, r
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s := &shell{t: t, in: w}
	s.p = startCommand(t, "the README's shell", cmd)
	r.Close()
	t.Cleanup(func() { w.Close() })
	return s
}

// run runs a step and compares what it prints: the lines of sees must come in that order, with anything for each …, and logs
// between them.
func (s *shell) run(step step) {
	s.t.Helper()
	s.t.Logf("running:\n%s", step.commands)
	s.count++
	end := fmt.Sprintf("step %d is done", s.count)
	if _, err := fmt.Fprintf(s.in, "%s\necho; echo '%s'\n", step.commands, end); err != nil {
		s.t.Fatal(err)
	}
	s.p.mu.Lock()
	from := len(s.p.lines)
	s.p.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var got []string
	for {
		s.p.mu.Lock()
		got = append([]string(nil), s.p.lines[from:]...)
		changed := s.p.changed
		s.p.mu.Unlock()
		if len(got) > 0 && strings.Contains(strings.Join(got, "\n"), end) {
			break
		}
		select {
		case <-changed:
		case <-s.p.done:
			s.t.Fatalf("the shell ended:\n%s", s.p.tail(30))
		case <-ctx.Done():
			s.t.Fatalf("the commands do not end:\n%s\n%s", step.commands, s.p.tail(30))
		}
	}
	rest := strings.Join(got, "\n") + "\n"
	for line := range strings.Lines(step.sees) {
		pattern := regexp.QuoteMeta(strings.TrimRight(line, "\n"))
		pattern = regexp.MustCompile(`\s+`).ReplaceAllString(strings.ReplaceAll(pattern, "…", ".*"), `\s+`)
		at := regexp.MustCompile("(?m)^" + pattern + `\s*$`).FindStringIndex(rest)
		if at == nil {
			s.t.Fatalf("the README says that one sees %q; the commands printed\n%s", line, strings.Join(got, "\n"))
		}
		rest = rest[at[1]:]
	}
}

// end waits for the jobs that the README leaves in the background: there must be none that does not end.
func (s *shell) end() {
	s.t.Helper()
	s.run(step{commands: "wait"})
}

// ownProc mounts the /proc of this process namespace, where pkill looks.
func ownProc() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}

// loopbackUp brings up the loopback interface of a fresh network namespace.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}
