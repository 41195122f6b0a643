package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	startTimeout = 20 * time.Second // until a process says that it is up
	keepLines    = 20               // of a process's output, for the error that says how it ended
)

// process is a child that leads a process group of its own, and ends with this process at the latest.
type process struct {
	name  string
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended and its output is read

	mu      sync.Mutex
	lines   []string      // the newest keepLines; older ones are dropped
	awaited string        // message of the log entry that announce waits for
	entry   chan logEntry // gets it; holds one
}

// logEntry is a line of a JSON log.
type logEntry map[string]any

func (e logEntry) text(key string) string { s, _ := e[key].(string); return s }

// startProcess starts cmd. awaited is the message of the log entry by which it says that it is up; "" where it says nothing.
func startProcess(name string, cmd *exec.Cmd, awaited string) (*process, error) {
	p := &process{name: name, cmd: cmd, ended: make(chan struct{}), awaited: awaited, entry: make(chan logEntry, 1)}
	output, writer := io.Pipe()
	if cmd.Stdout == nil {
		cmd.Stdout = writer
	}
	cmd.Stderr = writer
	endWithParent(cmd)
	read := make(chan struct{})
	go func() {
		defer close(read)
		p.read(output)
	}()
	started := make(chan error)
	go func() {
		// The parent whose death ends the child is the thread that started it: this one, kept until the child has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in ProcessState
		}
		_ = writer.Close() // a pipe in memory
		<-read
		close(p.ended)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

func (p *process) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		p.take(lines.Text())
	}
	_, _ = io.Copy(io.Discard, r) // after a line that is too long; the child must not block
}

func (p *process) take(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.lines) == keepLines {
		p.lines = p.lines[1:]
	}
	p.lines = append(p.lines, line)
	var e logEntry
	if p.awaited == "" || !strings.Contains(line, p.awaited) || json.Unmarshal([]byte(line), &e) != nil || e.text("msg") != p.awaited {
		return
	}
	p.awaited = ""
	p.entry <- e
}

// tail is the end of what the process wrote, for errors.
func (p *process) tail() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// up waits for the log entry that startProcess was told of.
func (p *process) up(ctx context.Context) (logEntry, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case e := <-p.entry:
		return e, nil
	case <-p.ended:
		return nil, fmt.Errorf("%s ended at once: %v\n%s", p.name, p.cmd.ProcessState, p.tail())
	case <-ctx.Done():
		return nil, fmt.Errorf("%s does not come up: %w\n%s", p.name, ctx.Err(), p.tail())
	}
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// kill ends the process and its children without a warning, and waits. A nil process has ended already.
func (p *process) kill() {
	if p == nil {
		return
	}
	if err := syscall.Kill(-p.pid(), syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		_ = p.cmd.Process.Kill()
	}
	<-p.ended
}
