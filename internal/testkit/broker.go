package testkit

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	// brokerStart is what a broker may take from its start to its first answer: 5 s for RabbitMQ on an idle machine.
	brokerStart = 90 * time.Second
	// brokerTries is how often a start is repeated where a port was taken meanwhile.
	brokerTries = 5
)

// Broker is a real message broker for one test. Its methods are called from one goroutine at a time, the test's.
type Broker struct {
	URL string // the same after each start

	t       testing.TB
	name    string
	dir     string // holds its data and its log
	ports   []int
	command func(*Broker) *exec.Cmd
	hello   func(conn net.Conn) error // returns nil when the broker has answered on its first port
	proc    *process                  // nil while stopped
	epmd    *process                  // RabbitMQ's name server; nil: none
}

// StartRedis returns a Redis server that writes every change to its disk before it answers.
func StartRedis(t testing.TB) *Broker {
	t.Helper()
	b := newBroker(t, "redis-server", "redis://%s", 1)
	b.command = func(b *Broker) *exec.Cmd {
		return exec.Command("redis-server", "--port", strconv.Itoa(b.ports[0]), "--bind", "127.0.0.1", "--dir", b.dir,
			"--save", "", "--appendonly", "yes", "--appendfsync", "always")
	}
	b.hello = says("PING\r\n", "+PONG")
	return b.begin()
}

// StartNATS returns a NATS server with JetStream.
func StartNATS(t testing.TB) *Broker {
	t.Helper()
	b := newBroker(t, "nats-server", "nats://%s", 1)
	b.command = func(b *Broker) *exec.Cmd {
		return exec.Command("nats-server", "--addr", "127.0.0.1", "--port", strconv.Itoa(b.ports[0]), "--jetstream", "--store_dir", b.dir)
	}
	b.hello = says("", "INFO ")
	return b.begin()
}

// rabbitScripts is where Debian's package has the server's own scripts; those on the PATH want a user called rabbitmq.
const rabbitScripts = "/usr/lib/rabbitmq/bin"

// StartRabbitMQ returns a RabbitMQ node with a name server of its own. The user is guest.
func StartRabbitMQ(t testing.TB) *Broker {
	t.Helper()
	b := newBroker(t, "rabbitmq-server", "amqp://guest:guest@%s", 3)
	names := exec.Command("epmd", "-address", "127.0.0.1", "-port", strconv.Itoa(b.ports[2]))
	var err error
	if b.epmd, err = startProcess(names); err != nil {
		t.Fatalf("epmd does not start: %v", err)
	}
	b.command = func(b *Broker) *exec.Cmd {
		cmd := exec.Command(filepath.Join(rabbitScripts, "rabbitmq-server"))
		for name, value := range map[string]string{
			"HOME": b.dir, "RABBITMQ_CONF_ENV_FILE": os.DevNull, "RABBITMQ_CONFIG_FILE": filepath.Join(b.dir, "none"),
			"RABBITMQ_NODENAME": fmt.Sprintf("testkit%d@localhost", b.ports[0]), "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
			"RABBITMQ_NODE_PORT": strconv.Itoa(b.ports[0]), "RABBITMQ_DIST_PORT": strconv.Itoa(b.ports[1]),
			"ERL_EPMD_PORT": strconv.Itoa(b.ports[2]), "ERL_EPMD_ADDRESS": "127.0.0.1",
			"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
			"RABBITMQ_MNESIA_BASE":                b.dir, "RABBITMQ_LOG_BASE": b.dir, "RABBITMQ_LOGS": "-",
			"RABBITMQ_ENABLED_PLUGINS_FILE": filepath.Join(b.dir, "plugins"), "RABBITMQ_PID_FILE": filepath.Join(b.dir, "pid"),
			"RUNNING_UNDER_SYSTEMD": "true", // the script becomes the server, instead of its parent
		} {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
		cmd.Env = append(os.Environ(), cmd.Env...)
		return cmd
	}
	b.hello = says("AMQP\x00\x00\x09\x01", "\x01\x00\x00") // a method frame of channel 0: connection.start
	return b.begin()
}

func newBroker(t testing.TB, name, url string, ports int) *Broker {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("no %s; `make deps` installs it", name)
	}
	b := &Broker{t: t, name: name, dir: t.TempDir()}
	var err error
	if b.ports, err = freePorts(ports); err != nil {
		t.Fatal(err)
	}
	b.URL = fmt.Sprintf(url, loopback(b.ports[0]))
	t.Cleanup(func() {
		b.Stop()
		if b.epmd != nil {
			b.epmd.kill()
		}
		if t.Failed() {
			t.Logf("end of the log of %s:\n%s", name, tail(b.logFile(), 4<<10))
		}
	})
	return b
}

// begin starts a new broker.
func (b *Broker) begin() *Broker {
	b.t.Helper()
	b.Start()
	return b
}

// Stop kills the broker, as a crash would. Its data stay.
func (b *Broker) Stop() {
	if b.proc != nil {
		b.proc.kill()
		b.proc = nil
	}
}

// Start starts a stopped broker again: same port, same data. It returns when it answers.
func (b *Broker) Start() {
	b.t.Helper()
	if b.proc != nil {
		return
	}
	var err error
	for range brokerTries {
		if err = b.start(); !errors.Is(err, errEnded) {
			break
		}
		time.Sleep(200 * time.Millisecond) // somebody has our port; it cannot be another
	}
	if err != nil {
		b.t.Fatalf("%s does not start: %v", b.name, err)
	}
}

func (b *Broker) start() error {
	log, err := os.OpenFile(b.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := b.command(b)
	cmd.Stdout, cmd.Stderr = log, log
	proc, err := startProcess(cmd)
	if err != nil {
		return err
	}
	err = poll(brokerStart, func() error {
		select {
		case <-proc.ended:
			return nil
		default:
			return b.answers()
		}
	})
	select {
	case <-proc.ended:
		return fmt.Errorf("%w: %w\n%s", errEnded, proc.err, tail(b.logFile(), 2<<10))
	default:
	}
	if err != nil {
		proc.kill()
		return err
	}
	b.proc = proc
	return nil
}

func (b *Broker) answers() error {
	conn, err := net.Dial("tcp", loopback(b.ports[0]))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	return b.hello(conn)
}

// says is a conversation: we say one thing, and the broker's answer begins with another.
func says(ours, theirs string) func(net.Conn) error {
	return func(conn net.Conn) error {
		if _, err := conn.Write([]byte(ours)); err != nil {
			return err
		}
		got, err := bufio.NewReader(conn).Peek(len(theirs))
		if err != nil {
			return err
		}
		if !strings.HasPrefix(string(got), theirs) {
			return fmt.Errorf("it says %q", got)
		}
		return nil
	}
}

func (b *Broker) logFile() string { return filepath.Join(b.dir, "log") }
