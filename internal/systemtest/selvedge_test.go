package systemtest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binary is the program under test, built once.
var binary = sync.OnceValues(func() (string, error) {
	path, err := filepath.Abs("../../bin/selvedge")
	if err != nil {
		return "", err
	}
	if out, err := exec.Command("make", "-C", "../..", "build").CombinedOutput(); err != nil {
		return "", fmt.Errorf("make build: %w\n%s", err, out)
	}
	return path, nil
})

// process is one running selvedge. Its log is kept, and shown where the test fails.
type process struct {
	t    testing.TB
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended

	mu      sync.Mutex
	lines   []string
	changed chan struct{} // closed at the next line
}

// start runs `selvedge args...` until the test ends.
func start(t testing.TB, name string, args ...string) *process {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return startCommand(t, name, exec.Command(path, append(args, "--log-format", "json")...))
}

func startCommand(t testing.TB, name string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, name: name, cmd: cmd, done: make(chan struct{}), changed: make(chan struct{})}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	readers.Go(func() { p.read(stderr) })
	readers.Go(func() { p.read(stdout) })
	go func() {
		readers.Wait()
		_ = cmd.Wait() // how it ended is in ProcessState
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("end of the log of %s:\n%s", name, p.tail(60))
		}
	})
	return p
}

func (p *process) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		p.mu.Lock()
		p.lines = append(p.lines, lines.Text())
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
	}
}

func (p *process) tail(n int) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines[max(0, len(p.lines)-n):], "\n")
}

// waitLine waits for a line of output that match accepts.
func (p *process) waitLine(what string, match func(line string) bool) {
	p.t.Helper()
	p.waitLineWithin(20*time.Second, what, match)
}

func (p *process) waitLineWithin(limit time.Duration, what string, match func(line string) bool) {
	p.t.Helper()
	deadline := time.After(limit)
	for seen := 0; ; {
		p.mu.Lock()
		fresh, changed := p.lines[seen:], p.changed
		seen = len(p.lines)
		p.mu.Unlock()
		for _, line := range fresh {
			if match(line) {
				return
			}
		}
		select {
		case <-changed:
		case <-p.done:
			p.t.Fatalf("%s ended before %s:\n%s", p.name, what, p.tail(20))
		case <-deadline:
			p.t.Fatalf("%s: no %s:\n%s", p.name, what, p.tail(20))
		}
	}
}

// waitLog waits for a log entry and returns it.
func (p *process) waitLog(message string) (entry map[string]any) {
	p.t.Helper()
	p.waitLine("log entry "+message, func(line string) bool {
		var e map[string]any
		if json.Unmarshal([]byte(line), &e) != nil || e["msg"] != message {
			return false
		}
		entry = e
		return true
	})
	return entry
}

// kill is kill -9.
func (p *process) kill() { p.signal(syscall.SIGKILL); <-p.done }

// signal goes to the process, and to its group where it leads one.
func (p *process) signal(s syscall.Signal) {
	err := p.cmd.Process.Signal(s)
	if p.cmd.SysProcAttr != nil && p.cmd.SysProcAttr.Setpgid {
		if err = syscall.Kill(-p.cmd.Process.Pid, s); errors.Is(err, syscall.ESRCH) {
			err = os.ErrProcessDone
		}
	}
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("%v to %s: %v", s, p.name, err)
	}
}

// wait returns the exit code.
func (p *process) wait(within time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(within):
		p.t.Fatalf("%s has not ended within %v:\n%s", p.name, within, p.tail(20))
	}
	return p.cmd.ProcessState.ExitCode()
}

// run runs a command of the binary to its end.
func run(t testing.TB, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	var out, errs strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err = cmd.Run()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// runJSON runs a command with --output json and decodes each line it prints.
func runJSON[T any](t testing.TB, args ...string) (lines []T, code int) {
	t.Helper()
	stdout, stderr, code := run(t, "", append(args, "--output", "json")...)
	for line := range strings.Lines(stdout) {
		var v T
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("selvedge %s: %v in %q\n%s", args[0], err, line, stderr)
		}
		lines = append(lines, v)
	}
	if len(lines) == 0 {
		t.Fatalf("selvedge %s printed nothing, exit code %d: %s", strings.Join(args, " "), code, stderr)
	}
	return lines, code
}

// devServer is a running `selvedge dev`.
type devServer struct {
	*process
	URL, AdminURL string
}

// startDev runs `selvedge dev` until the test ends, and waits until it says that it is up.
func startDev(t *testing.T) *devServer {
	t.Helper()
	d := &devServer{process: start(t, "dev", "dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")}
	d.waitLine("banner", func(line string) bool {
		fields := strings.Fields(line)
		if len(fields) >= 2 && fields[0] == "Chat" {
			d.URL = strings.TrimSuffix(fields[1], "/")
		}
		if len(fields) >= 2 && fields[0] == "Operator" {
			d.AdminURL = strings.TrimSuffix(fields[1], "/")
		}
		return d.AdminURL != ""
	})
	return d
}
