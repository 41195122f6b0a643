package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/selvedge/selvedge/backend/sender"
)

// Env is what a benchmark stands on.
type Env struct {
	// Binary is the path of the selvedge under test.
	Binary string
	// Self is the path of the calling program, which begins with [Role].
	Self string
	// Progress is told, in a line each, what goes on. It must not be nil.
	Progress func(line string)
}

// cluster is a set of backends that found each other through a registry file.
type cluster struct {
	env      Env
	settings []string // of the environment
	dir      string   // holds the registry file; removed by kill
	registry string
	backends []*member
	edges    []*frontDoor
}

type member struct {
	*process
	id, addr, rpc, admin string
}

type frontDoor struct {
	*process
	addr, admin string
}

// startCluster starts n backends, on ports that were free a moment before: a member serves once the registry names it. It returns when
// all of them see a ring of n. settings are variables of their environment.
func startCluster(ctx context.Context, env Env, n int, settings ...string) (c *cluster, err error) {
	dir, err := os.MkdirTemp("", "selvedge-bench-")
	if err != nil {
		return nil, err
	}
	c = &cluster{env: env, settings: settings, dir: dir, registry: filepath.Join(dir, "registry.yaml")}
	defer func() {
		if err != nil {
			c.kill()
		}
	}()
	addrs, err := freeAddrs(3 * n)
	if err != nil {
		return c, err
	}
	var list strings.Builder
	for i := range n {
		b := &member{id: fmt.Sprintf("b%d", i+1), addr: addrs[3*i], rpc: addrs[3*i+1], admin: addrs[3*i+2]}
		c.backends = append(c.backends, b)
		fmt.Fprintf(&list, "\n  - {id: %s, addr: %q, rpc: %q}", b.id, b.addr, b.rpc)
	}
	if err := c.publish("services:\n  default:" + list.String() + "\n"); err != nil {
		return c, err
	}
	for _, b := range c.backends {
		b.process, err = c.start(b.id, "serving", "backend", "--id", b.id, "--listen", b.addr, "--rpc", b.rpc, "--admin", b.admin)
		if err != nil {
			return c, err
		}
	}
	for _, b := range c.backends {
		if _, err := b.up(ctx); err != nil {
			return c, err
		}
		if err := awaitRing(ctx, b.rpc, n); err != nil {
			return c, err
		}
	}
	return c, nil
}

// publish replaces the registry at once: a reader sees the old one or the new one.
func (c *cluster) publish(text string) error {
	if err := os.WriteFile(c.registry+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(c.registry+".new", c.registry)
}

// addEdge starts an edge in front of the backends, with flags in place of a listener of its own, and returns when it knows them.
func (c *cluster) addEdge(ctx context.Context, config ...string) (*frontDoor, error) {
	name := fmt.Sprintf("edge %d", len(c.edges)+1)
	if config == nil {
		config = []string{"--listen", "127.0.0.1:0"}
	}
	p, err := c.start(name, "edge is listening", append([]string{"edge", "--admin", "127.0.0.1:0"}, config...)...)
	if err != nil {
		return nil, err
	}
	e := &frontDoor{process: p}
	c.edges = append(c.edges, e)
	entry, err := p.up(ctx)
	if err != nil {
		return nil, err
	}
	e.addr, e.admin = entry.text("addr"), entry.text("admin")
	return e, awaitRing(ctx, e.admin, len(c.backends))
}

func (c *cluster) start(name, awaited string, args ...string) (*process, error) {
	args = append(args, "--registry", c.registry, "--log-format", "json")
	cmd := exec.Command(c.env.Binary, args...)
	cmd.Env = append(os.Environ(), c.settings...)
	return startProcess(name, cmd, awaited)
}

// asks is how many questions the backends have put to each other about pushes so far.
func (c *cluster) asks(ctx context.Context) (float64, error) {
	var sum float64
	for _, b := range c.backends {
		n, err := scrape(ctx, b.admin, "selvedge_backend_asks_total")
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

func (c *cluster) pids() []int {
	var pids []int
	for _, b := range c.backends {
		pids = append(pids, b.pid())
	}
	return pids
}

func (c *cluster) kill() {
	for _, e := range c.edges {
		e.kill()
	}
	for _, b := range c.backends {
		b.kill()
	}
	_ = os.RemoveAll(c.dir) // a folder of two small files, in the system's folder for such
}

// awaitRing waits until the process with a push service at addr decides by a ring of n members.
func awaitRing(ctx context.Context, addr string, n int) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	asker, err := sender.New(sender.Config{Via: "http://" + addr})
	if err != nil {
		return err
	}
	defer asker.Close()
	for {
		inRing := 0
		ring, err := asker.Ring(ctx)
		for _, m := range ring.GetMembers() {
			if m.InRing {
				inRing++
			}
		}
		if inRing == n {
			return nil
		}
		if pause(ctx, 20*time.Millisecond) != nil {
			return fmt.Errorf("%s has a ring of %d members instead of %d: %w", addr, inRing, n, errors.Join(ctx.Err(), err))
		}
	}
}
