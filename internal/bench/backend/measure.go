package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gobwas/ws"
)

// serve is the life of a contender's process: it says where it listens, and then does what it is told, a line at a time, until its input
// ends. An answer is a number, or what went wrong.
func serve(name string, in io.Reader, out io.Writer) error {
	var s server
	for _, c := range contenders {
		if c.name == name {
			var err error
			if s, err = c.start(); err != nil {
				return err
			}
		}
	}
	if s == nil {
		return errors.New("no such contender")
	}
	fmt.Fprintln(out, s.addr())
	for lines := bufio.NewScanner(in); lines.Scan(); {
		command, rest, _ := strings.Cut(lines.Text(), " ")
		n, _ := strconv.Atoi(rest)
		var answer any
		var err error
		switch command {
		case "cpu":
			answer = cpu().Nanoseconds()
		case "memory":
			answer = memory()
		case "broadcast":
			err = s.broadcast(bytes.Repeat([]byte("x"), n))
		case "many": // to n users, in a message of the usual size
			if m, can := s.(manyServer); can {
				err = m.pushMany(n, bytes.Repeat([]byte("x"), 128))
			} else {
				answer = -1
			}
		}
		switch {
		case err != nil:
			answer = err
		case answer == nil:
			answer = 0
		}
		fmt.Fprintln(out, answer)
	}
	return nil
}

// cpu is what this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // of this process, it cannot fail
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// memory is what lives in user space: heap and stacks.
func memory() uint64 {
	runtime.GC()
	runtime.GC() // pools let go at the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// process is a contender's process.
type process struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	addr string
}

func startProcess(name string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(self, "serve", name)}
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	line, err := p.out.ReadString('\n')
	p.addr = strings.TrimSpace(line)
	return p, err
}

func (p *process) end() {
	p.in.Close()
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func (p *process) do(command string) (float64, error) {
	if _, err := fmt.Fprintln(p.in, command); err != nil {
		return 0, err
	}
	line, err := p.out.ReadString('\n')
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(line), 64)
	if err != nil {
		return 0, errors.New(strings.TrimSpace(line))
	}
	return n, nil
}

// clients are connections of users 0, 1, ... to one contender.
type clients struct{ conns []net.Conn }

func (c *clients) open(addr string, n int) error {
	for len(c.conns) < n {
		d := ws.Dialer{ReadBufferSize: 512, WriteBufferSize: 512, Header: ws.HandshakeHeaderHTTP(http.Header{"X-Selvedge-User": {userName(len(c.conns))}})}
		conn, early, _, err := d.Dial(context.Background(), "ws://"+addr+"/")
		if err != nil {
			return err
		}
		if early != nil {
			return errors.New("a server speaks first")
		}
		c.conns = append(c.conns, conn)
	}
	return nil
}

func (c *clients) close() {
	for _, conn := range c.conns {
		conn.Close()
	}
}

// each runs f for the first n connections at once.
func (c *clients) each(n int, f func(net.Conn) error) error {
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i, conn := range c.conns[:n] {
		wg.Go(func() {
			_ = conn.SetDeadline(time.Now().Add(time.Minute))
			errs[i] = f(conn)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// measure is one round of one contender.
func measure(cfg config, name string) (f figures, err error) {
	p, err := startProcess(name)
	if err != nil {
		return f, err
	}
	defer p.end()
	c := &clients{}
	defer c.close()
	if err := c.open(p.addr, warmUp); err != nil {
		return f, err
	}
	before, err := p.do("memory")
	if err != nil {
		return f, err
	}
	if err := c.open(p.addr, warmUp+cfg.Idle); err != nil {
		return f, err
	}
	after, err := p.do("memory")
	if err != nil {
		return f, err
	}
	f.IdleBytes = (after - before) / float64(cfg.Idle)
	if name == "write(2)" {
		f.IdleBytes = 0 // it is not there for this
	} else if f.EchoCPU, err = echo(cfg, p, c); err != nil {
		return f, fmt.Errorf("echo: %w", err)
	}
	audience := warmUp + cfg.Idle // all of them: a server would still write to one that has just closed
	if f.DeliverCPU, err = deliver(cfg, p, c, audience, cfg.Broadcasts, "broadcast "+strconv.Itoa(cfg.Bytes)); err != nil {
		return f, fmt.Errorf("broadcast: %w", err)
	}
	if name != "selvedge" {
		return f, nil
	}
	if err := c.open(p.addr, cfg.Users); err != nil {
		return f, err
	}
	if f.ManyCPU, err = deliver(cfg, p, c, cfg.Users, max(1, cfg.Broadcasts/2), "many "+strconv.Itoa(cfg.Users)); err != nil {
		err = fmt.Errorf("PushMany: %w", err)
	}
	return f, err
}

const warmUp = 200 // sessions, whose memory is not counted: code and buffers that all share are there then

// echo has sessions send and await messages, each the next when the last is back; the result is CPU per message in microseconds.
func echo(cfg config, p *process, c *clients) (float64, error) {
	message := bytes.Repeat([]byte("x"), cfg.Bytes)
	sent := ws.MustCompileFrame(ws.MaskFrame(ws.NewTextFrame(message)))
	want := ws.MustCompileFrame(ws.NewTextFrame(message))
	return charged(p, cfg.Echoing*cfg.Echoes, func() error {
		return c.each(cfg.Echoing, func(conn net.Conn) error {
			got := make([]byte, len(want))
			for range cfg.Echoes {
				if _, err := conn.Write(sent); err != nil {
					return err
				}
				if _, err := io.ReadFull(conn, got); err != nil {
					return err
				}
				if !bytes.Equal(got, want) {
					return fmt.Errorf("%q came back", got)
				}
			}
			return nil
		})
	})
}

// deliver has the server send messages, times over, to n sessions each; the result is CPU per delivery in microseconds.
func deliver(cfg config, p *process, c *clients, n, times int, command string) (float64, error) {
	size := len(ws.MustCompileFrame(ws.NewTextFrame(make([]byte, cfg.Bytes))))
	send := func(command string, times int) error {
		arrived := make(chan error, 1)
		go func() {
			arrived <- c.each(n, func(conn net.Conn) error {
				_, err := io.CopyN(io.Discard, conn, int64(times*size))
				return err
			})
		}()
		for range times {
			if _, err := p.do(command); err != nil {
				return err
			}
		}
		return <-arrived
	}
	if err := send("broadcast "+strconv.Itoa(cfg.Bytes), newConnection); err != nil {
		return 0, err
	}
	return charged(p, n*times, func() error { return send(command, times) })
}

// newConnection is for how many messages a connection is new: its receiver acknowledges each at once (TCP_MAX_QUICKACKS is 16), in the
// midst of the sender's write. Sessions that live for hours are not measured by that.
const newConnection = 20

// charged is what the process used for each unit of work, in microseconds.
func charged(p *process, units int, work func() error) (float64, error) {
	before, err := p.do("cpu")
	if err != nil {
		return 0, err
	}
	if err := work(); err != nil {
		return 0, err
	}
	after, err := p.do("cpu")
	return (after - before) / 1e3 / float64(units), err
}
