package bench

import (
	"context"
	"errors"
	"fmt"
	"net/rpc"
	"os/exec"
	"time"
)

// crowd is the clients of a benchmark, in one process or more, each of which takes an equal part.
type crowd struct {
	processes []*clients
	phase     uint32
}

// clients is one client process.
type clients struct {
	*process
	rpc *rpc.Client
}

// startCrowd starts n client processes.
func startCrowd(env Env, n int) (*crowd, error) {
	c := new(crowd)
	for i := range n {
		p, err := startClients(env, fmt.Sprintf("clients %d", i+1))
		if err != nil {
			c.kill()
			return nil, err
		}
		c.processes = append(c.processes, p)
	}
	return c, nil
}

func startClients(env Env, name string) (*clients, error) {
	cmd := exec.Command(env.Self, roleClients)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p, err := startProcess(name, cmd, "")
	if err != nil {
		return nil, err
	}
	return &clients{process: p, rpc: rpc.NewClient(pipe{out, in})}, nil
}

// call asks all processes at once; args gives each its own question.
func call[A, R any](ctx context.Context, c *crowd, method string, args func(i int) A) ([]R, error) {
	replies := make([]R, len(c.processes))
	calls := make(chan *rpc.Call, len(c.processes))
	for i, p := range c.processes {
		p.rpc.Go("Holder."+method, args(i), &replies[i], calls)
	}
	var errs []error
	for range c.processes {
		select {
		case done := <-calls:
			if done.Error != nil {
				errs = append(errs, fmt.Errorf("clients: %s: %w", method, done.Error))
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return replies, errors.Join(errs...)
}

func callAll[A any](ctx context.Context, c *crowd, method string, args A) error {
	_, err := call[A, struct{}](ctx, c, method, func(int) A { return args })
	return err
}

// open opens the sessions of the users from first up to last, each at addr(user).
func (c *crowd) open(ctx context.Context, first, last int, path string, direct bool, addr func(user int) string) error {
	n := len(c.processes)
	parts := make([]OpenArgs, n)
	for user := first; user < last; user++ {
		p := &parts[user%n]
		p.Users = append(p.Users, user)
		p.Addrs = append(p.Addrs, addr(user))
	}
	_, err := call[OpenArgs, struct{}](ctx, c, "Open", func(i int) OpenArgs {
		parts[i].Path, parts[i].Direct = path, direct
		return parts[i]
	})
	return err
}

// begin begins a phase and returns its number, which messages carry.
func (c *crowd) begin(ctx context.Context) (uint32, error) {
	c.phase++
	return c.phase, callAll(ctx, c, "Begin", c.phase)
}

// echo has every session send a message, and waits until it has come back; want is how many there are.
func (c *crowd) echo(ctx context.Context, want int, within time.Duration) (Tally, error) {
	c.phase++
	if err := callAll(ctx, c, "Echo", c.phase); err != nil {
		return Tally{}, err
	}
	return c.await(ctx, want, within)
}

// await waits until the clients have got want messages in this phase and returns what they saw. It is an error if that is not
// what they should have seen: a message lost, repeated, or gone astray, or a session lost.
func (c *crowd) await(ctx context.Context, want int, within time.Duration) (Tally, error) {
	deadline := time.Now().Add(within)
	for {
		t, err := c.tally(ctx)
		if err != nil {
			return t, err
		}
		if t.Messages >= want || t.Problem != "" || time.Now().After(deadline) {
			return t, t.check(want)
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return t, err
		}
	}
}

// arrival waits until the clients have got want messages in this phase, or something is wrong, and takes little processor time for it.
func (c *crowd) arrival(ctx context.Context, want int, within time.Duration) error {
	for deadline := time.Now().Add(within); time.Now().Before(deadline); {
		counts, err := call[struct{}, int](ctx, c, "Count", func(int) struct{} { return struct{}{} })
		sum := 0
		for _, n := range counts {
			sum += n
		}
		if err != nil || sum >= want {
			return err
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil // await says what is missing
}

func (t *Tally) check(want int) error {
	if t.Messages != want || t.Twice > 0 || t.Stray > 0 || t.Problem != "" {
		return fmt.Errorf("%d of %d messages came, %d came twice, %d went astray; %d sessions are open: %q",
			t.Messages, want, t.Twice, t.Stray, t.Open, t.Problem)
	}
	return nil
}

func (c *crowd) tally(ctx context.Context) (Tally, error) {
	parts, err := call[struct{}, Tally](ctx, c, "Tally", func(int) struct{} { return struct{}{} })
	var sum Tally
	for _, t := range parts {
		sum.add(t)
	}
	return sum, err
}

// closeAll closes all sessions.
func (c *crowd) closeAll(ctx context.Context) error { return callAll(ctx, c, "CloseAll", struct{}{}) }

// kill ends the processes and with them the sessions.
func (c *crowd) kill() {
	for _, p := range c.processes {
		_ = p.rpc.Close() // only says that it was closed already
		p.kill()
	}
}
