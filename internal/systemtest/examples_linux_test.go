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

	"github.com/selvedge/selvedge/internal/testkit"
)

// TestExamples runs each example of each command's help as it is written, but for /etc/selvedge, which is another folder. They use the default ports, so
// it has a network of its own. A new command is in it by itself.
func TestExamples(t *testing.T) { apart(t, runExamples) }

func runExamples(t *testing.T) {
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	repo := filepath.Dir(filepath.Dir(path))
	t.Setenv("PATH", filepath.Dir(path)+":"+os.Getenv("PATH"))
	for _, address := range []string{"10.0.0.1/32", "10.0.0.2/32"} {
		if out, err := exec.Command("ip", "address", "add", address, "dev", "lo").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	consul := exec.Command("consul", "agent", "-dev")
	consul.Dir = repo
	startCommand(t, "consul", consul)
	testkit.Eventually(t, 60*time.Second, func() bool {
		_, _, code := run(t, "", "doctor", "--service", "none", "--output", "json")
		out, _, _ := run(t, "", "doctor", "--service", "none")
		return code == 1 && strings.Contains(out, "good     consul")
	}, "Consul to have a leader")

	commands := readCommands(t)
	e := examples{t: t, dir: t.TempDir()}
	for _, c := range commands {
		if c.listens {
			e.run(c)
		}
	}
	e.begin()
	for _, c := range commands {
		if !c.listens {
			e.run(c)
		}
	}
}

// examples runs them in a folder, where edges and backends are up once begin has been called.
type examples struct {
	t     *testing.T
	dir   string
	crowd *crowd
}

// begin brings up what those examples speak of that do not start it themselves.
func (e *examples) begin() {
	t := e.t
	token := filepath.Join(e.dir, "token")
	writeFile(t, token, "s3cret\n")
	writeFile(t, filepath.Join(e.dir, "edge.yaml"), "consul: {addr: \"127.0.0.1:8500\"}\nroutes: [{path: /ws}]\n")
	for id, args := range map[string]string{
		"b1": "--listen 127.0.0.1:9201 --rpc 127.0.0.1:9301 --admin 127.0.0.1:9101",
		"b3": "--listen 127.0.0.1:9203 --rpc 127.0.0.1:9303 --service chat", "b4": "--listen 127.0.0.1:9204 --rpc 127.0.0.1:9304 --service chat",
	} {
		start(t, id, append([]string{"backend", "--id", id}, strings.Fields(args)...)...).waitLog("serving")
	}
	start(t, "edge", "edge").waitLog("edge is listening")
	for _, host := range []string{"10.0.0.1", "10.0.0.2"} {
		config := filepath.Join(e.dir, host+".yaml")
		writeFile(t, config, "admin: {token_file: "+token+"}\n")
		start(t, "edge at "+host, "edge", "--config", config, "--listen", host+":0", "--admin", host+":8081", "--service", "chat").waitLog("edge is listening")
	}
	e.crowd = online(t, []string{"alice", "bob"}, 1, &frontDoor{addr: "127.0.0.1:8080"})
	for _, moment := range []string{"before", "after"} {
		shown := ""
		testkit.Eventually(t, 20*time.Second, func() error {
			stdout, stderr, code := run(t, "", "ring", "show", "--service", "chat", "--output", "json")
			if shown = stdout; code != 0 || strings.Count(stdout, `"in_ring":true`) != 2 {
				return fmt.Errorf("exit code %d, %s%s", code, stdout, stderr)
			}
			return nil
		}, "the members to be on the ring")
		writeFile(t, filepath.Join(e.dir, moment+".json"), shown)
	}
}

// readyToStop is what a process says that may be told to stop.
var readyToStop = regexp.MustCompile(`serving|is listening|Ctrl-C`)

func (e *examples) run(c documented) {
	for _, example := range c.examples {
		e.t.Run(example, func(t *testing.T) {
			if e.crowd != nil {
				e.crowd.await("everybody to be online", 20*time.Second, func(d *device) bool { return d.held() != "" })
			}
			line := strings.ReplaceAll(example, "/etc/selvedge/", e.dir+"/")
			if c.serves {
				line = "exec " + line // signals are for it
			}
			cmd := exec.Command("bash", "-o", "pipefail", "-c", line)
			cmd.Dir = e.dir
			p := startCommand(t, example, cmd)
			if c.listens {
				p.waitLine("sign that it is ready", readyToStop.MatchString)
			}
			if c.serves {
				select {
				case <-p.done:
				case <-time.After(2 * time.Second): // it may be one that ends by itself
					p.signal(syscall.SIGTERM)
				}
			}
			if code := p.wait(2 * time.Minute); code != 0 {
				t.Errorf("exit code %d:\n%s", code, p.tail(20))
			}
		})
	}
}
