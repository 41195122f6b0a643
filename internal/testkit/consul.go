package testkit

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

const (
	// consulStart is what a server may take from its start to an elected leader and a catalogue: 2 s on an idle machine.
	consulStart = 60 * time.Second
	// consulTries is how often a start is repeated where a port was taken meanwhile.
	consulTries = 5
	// consulNode is the server's node name in its catalogue.
	consulNode = "testkit"
)

// Consul is a real Consul server with one node, for one test. Its methods are called from one goroutine at a time, the test's.
type Consul struct {
	Addr  string // of its HTTP API: 127.0.0.1:port, the same after each start
	Token string // that may do everything, where there are ACLs; "": there are none

	t      testing.TB
	binary string
	dir    string // holds data/, config.json and log
	ports  consulPorts
	client *api.Client
	proc   *process // nil while stopped
}

type consulPorts struct{ http, server, serf int }

// StartConsul returns a Consul server that has a leader and takes registrations. It is killed at the test's end; its log's end is
// shown where the test failed.
func StartConsul(t testing.TB) *Consul { return startConsul(t, "") }

// StartConsulWithACLs returns one that lets nobody do anything without a token; [Consul.Token] may do everything.
func StartConsulWithACLs(t testing.TB) *Consul {
	return startConsul(t, "00000000-0000-0000-0000-00000000beef")
}

func startConsul(t testing.TB, token string) *Consul {
	t.Helper()
	c := &Consul{Token: token, t: t, binary: consulBinary(t), dir: t.TempDir()}
	t.Cleanup(func() {
		c.Stop()
		if t.Failed() {
			t.Logf("end of Consul's log:\n%s", tail(c.logFile(), 8<<10))
		}
	})
	var err error
	for range consulTries {
		if err = c.choosePorts(); err != nil {
			break
		}
		if err = c.start(); !errors.Is(err, errEnded) {
			break
		}
	}
	if err != nil {
		t.Fatalf("Consul does not start: %v", err)
	}
	return c
}

// Client returns a client of the server; it stays good through Stop and Start.
func (c *Consul) Client() *api.Client { return c.client }

// Stop kills the server, as a crash would. Its data stay.
func (c *Consul) Stop() {
	if c.proc != nil {
		c.proc.kill()
		c.proc = nil
	}
}

// Start starts a stopped server again: same ports, same data unless they were wiped. It returns when there is a leader.
func (c *Consul) Start() {
	c.t.Helper()
	if c.proc != nil {
		return
	}
	var err error
	for range consulTries {
		if err = c.start(); !errors.Is(err, errEnded) {
			break
		}
		time.Sleep(200 * time.Millisecond) // somebody has our port; it cannot be another
	}
	if err != nil {
		c.t.Fatalf("Consul does not start again: %v", err)
	}
}

// Wipe throws the data of a stopped server away: the next Start begins with an empty catalogue.
func (c *Consul) Wipe() {
	c.t.Helper()
	if c.proc != nil {
		c.t.Fatal("testkit: Wipe of a Consul that runs; Stop it first")
	}
	if err := os.RemoveAll(c.dataDir()); err != nil {
		c.t.Fatal(err)
	}
}

func (c *Consul) choosePorts() error {
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	c.ports = consulPorts{http: ports[0], server: ports[1], serf: ports[2]}
	c.Addr = loopback(c.ports.http)
	c.client, err = api.NewClient(&api.Config{
		Address: c.Addr,
		Token:   c.Token,
		// No connection outlives its request: nothing to leak, nothing half dead after a restart.
		HttpClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
	})
	return err
}

// errEnded tells that the server ended before it was ready, most likely for want of a port.
var errEnded = errors.New("it ended by itself")

func (c *Consul) start() error {
	config, err := json.Marshal(c.config())
	if err != nil {
		return err
	}
	file := filepath.Join(c.dir, "config.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return err
	}
	log, err := os.OpenFile(c.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(c.binary, "agent", "-config-file", file)
	cmd.Stdout, cmd.Stderr = log, log
	proc, err := startProcess(cmd)
	if err != nil {
		return err
	}
	err = poll(consulStart, func() error {
		select {
		case <-proc.ended:
			return nil
		default:
			return c.usable()
		}
	})
	select {
	case <-proc.ended:
		return fmt.Errorf("%w: %w\n%s", errEnded, proc.err, tail(c.logFile(), 2<<10))
	default:
	}
	if err != nil {
		proc.kill()
		return err
	}
	c.proc = proc
	return nil
}

// usable tells what a server lacks to take registrations and answer queries.
func (c *Consul) usable() error {
	leader, err := c.client.Status().Leader()
	if err != nil {
		return err
	}
	if leader == "" {
		return errors.New("it has no leader")
	}
	checks, _, err := c.client.Health().Node(consulNode, nil)
	if err != nil {
		return err
	}
	if len(checks) == 0 || checks.AggregatedStatus() != api.HealthPassing {
		return errors.New("its own node is not in the catalogue")
	}
	return nil
}

func (c *Consul) config() map[string]any {
	config := map[string]any{
		"node_name": consulNode,
		"data_dir":  c.dataDir(),
		// A server, not -dev: the data must outlive the process.
		"server":           true,
		"bootstrap_expect": 1,
		"bind_addr":        "127.0.0.1",
		"client_addr":      "127.0.0.1",
		"ports": map[string]int{
			"http": c.ports.http, "server": c.ports.server, "serf_lan": c.ports.serf,
			"serf_wan": -1, "dns": -1, "https": -1, "grpc": -1, "grpc_tls": -1,
		},
		// The shortest timeouts that raft takes: a leader within 2 s.
		"performance":             map[string]any{"raft_multiplier": 1, "leave_drain_time": "0s"},
		"leave_on_terminate":      false,
		"skip_leave_on_interrupt": true,
		"disable_update_check":    true,
		"log_level":               "INFO",
		"connect":                 map[string]any{"enabled": false},
		"peering":                 map[string]any{"enabled": false},
		"ui_config":               map[string]any{"enabled": false},
	}
	if c.Token != "" {
		config["primary_datacenter"] = "dc1"
		config["acl"] = map[string]any{
			"enabled": true, "default_policy": "deny",
			"tokens": map[string]string{"initial_management": c.Token, "agent": c.Token},
		}
	}
	return config
}

func (c *Consul) dataDir() string { return filepath.Join(c.dir, "data") }
func (c *Consul) logFile() string { return filepath.Join(c.dir, "log") }

// tail returns the last n bytes of a file.
func tail(path string, n int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-n):])
}
