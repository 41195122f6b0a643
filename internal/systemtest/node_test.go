package systemtest

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
)

// program is one in JavaScript, which writes what happens to it as a line of JSON each, and ends with its input.
type program[E any] struct {
	stdin io.Writer

	mu  sync.Mutex
	log []E
}

// runProgram runs a script of testdata/js until the test ends.
func runProgram[E any](t *testing.T, script string, args ...string) *program[E] {
	t.Helper()
	cmd := exec.Command("node", append([]string{"testdata/js/" + script}, args...)...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &program[E]{stdin: stdin}
	var reading sync.WaitGroup
	reading.Go(func() {
		for scan := bufio.NewScanner(stdout); scan.Scan(); {
			var e E
			if err := json.Unmarshal(scan.Bytes(), &e); err != nil {
				t.Errorf("%s: %v: %s", script, err, scan.Bytes())
				continue
			}
			p.mu.Lock()
			p.log = append(p.log, e)
			p.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		stdin.Close()
		reading.Wait()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v; are the packages there? `make js` installs them", script, err)
		}
	})
	return p
}

func (p *program[E]) events() []E {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clip(p.log)
}
