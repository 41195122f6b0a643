package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// execute runs a command line in this process and returns what it printed and the exit code.
func execute(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var out, errs bytes.Buffer
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(strings.NewReader("from standard input"))
	root.SetOut(&out)
	root.SetErr(&errs)
	err := root.ExecuteContext(ctx)
	if err != nil {
		errs.WriteString(err.Error())
	}
	return out.String(), errs.String(), exitCode(err)
}

// What is wrong with a command line or a configuration exits with 2 and says what to change.
func TestUsageErrors(t *testing.T) {
	config := filepath.Join(t.TempDir(), "edge.yaml")
	if err := os.WriteFile(config, []byte("admin: {addr: 127.0.0.1:0}\nroutes:\n  - {pth: /}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	routes := filepath.Join(t.TempDir(), "routes.yaml")
	if err := os.WriteFile(routes, []byte("backends: b1=127.0.0.1:1\nroutes:\n  - {path: /}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(t.TempDir(), "wrong.yaml")
	if err := os.WriteFile(wrong, []byte("routes:\n  - {path: /}\n  - {path: x}\nbackend: {id: b1, weight: 2000}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	bridges := filepath.Join(t.TempDir(), "bridge.yaml")
	if err := os.WriteFile(bridges, []byte("bridge:\n  amqp: amqp://u:hush/ed@h\n  queue: q\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, says := range map[string]string{
		"no-such-command": "unknown command",
		"ring nope":       "unknown command",
		"edge --nope":     "unknown flag",
		"edge extra":      "unknown command",
		"edge --drain-timeout soon --backends b1=127.0.0.1:1": "drain_timeout",
		"edge --backends b1":                                       "ID=HOST:PORT",
		"edge --engine warp --backends b1=127.0.0.1:1":             "auto, copy or splice",
		"edge --admin 0.0.0.0:8081 --backends b1=127.0.0.1:1":      "token",
		"edge --key jwt:sub --backends b1=127.0.0.1:1":             "auth",
		"edge --key nonsense --backends b1=127.0.0.1:1":            "query:NAME",
		"edge --consul 127.0.0.1:1 --backends b1=127.0.0.1:1":      "exactly one",
		"edge --config " + config:                                  "edge.yaml:3: routes[0].pth",
		"check":                                                    "--config",
		"check --config " + config:                                 "edge.yaml:3: routes[0].pth",
		"check --config " + wrong:                                  "wrong.yaml:3: routes[1].path",
		"check --config  " + wrong:                                 "wrong.yaml:4: backend.weight", // both parts, at once
		"edge --config " + wrong:                                   "wrong.yaml:3: routes[1].path",
		"backend --config " + wrong:                                "wrong.yaml:4: backend.weight",
		"edge --config /no/such/file":                              "/no/such/file",
		"edge --service x --config " + routes:                      "routes",
		"backend --weight 2000 --backends b1=127.0.0.1:1":          "1 to 1,000",
		"backend --weight heavy --backends b1=127.0.0.1:1":         "backend.weight",
		"backend --rpc 0.0.0.0:9100 --backends b1=127.0.0.1:1":     "token",
		"dev --members 0":                                          "1 to 100",
		"push":                                                     "--to",
		"push --to a --all":                                        "--all",
		"push --to a --text x --file y":                            "--text",
		"push --to a --text x --via 127.0.0.1:1 --consul x":        "--via",
		"push --to a --text x --via ftp://127.0.0.1:1":             "http://",
		"push --to a --text x --token-file /no/such/file":          "--token-file",
		"push --to a --text x --output xml --via 127.0.0.1:1":      "text or json",
		"push --to a --text x --log-level loud --via 127.0.0.1:1":  "debug, info",
		"push --to a --text x --log-format loud --via 127.0.0.1:1": "console or json",
		"bridge": "want one of redis, amqp and nats",
		"bridge --amqp amqp://h --queue q --redis redis://h --channel c":      "2 brokers",
		"bridge --amqp http://h --queue q":                                    "want amqp://HOST:PORT",
		"bridge --amqp amqp://u:hush/ed@h --queue q":                          "percent-encoded",
		"bridge --amqp amqp://h:port --queue q":                               "want amqp://HOST:PORT",
		"bridge --redis redis://h/nodb --channel c":                           "redis://",
		"bridge --amqp amqp://h":                                              "bridge.queue",
		"bridge --redis redis://h":                                            "either a channel (pub/sub) or a stream",
		"bridge --nats nats://h":                                              "bridge.subject",
		"bridge --nats nats://h --subject s --queue q":                        "bridge.queue: this is for amqp",
		"bridge --redis redis://h --channel c --offline dead-letter":          "no place to keep",
		"bridge --amqp amqp://h --queue q --offline forget":                   "want ack or dead-letter",
		"bridge --amqp amqp://h --queue q --user name":                        "bridge.user",
		"bridge --amqp amqp://h --queue q --user json:":                       "name what to look for",
		"bridge --amqp amqp://h --queue q --user all,json:user":               "never looked at",
		"bridge --amqp amqp://h --queue q --payload all":                      "body, several by comma",
		"bridge --amqp amqp://h --queue q --tries 0 --timeout 1m":             "bridge.timeout",
		"bridge --amqp amqp://h --queue q --in-flight 100000":                 "1 to 65535",
		"bridge --amqp amqp://h --queue q --admin 0.0.0.0:8082":               "token",
		"bridge --amqp amqp://h --queue q --via 127.0.0.1:1 --consul x":       "bridge.via",
		"bridge --amqp amqp://h --queue q --via ftp://127.0.0.1:1":            "http://",
		"bridge --amqp amqp://h --queue q --token-file /no/such/file":         "bridge.token_file",
		"bridge --amqp amqp://h --queue q --via 127.0.0.1:1 --backends x=h:1": "bridge.via",
		"bridge --config " + bridges:                                          "bridge.yaml:2: bridge.amqp",
		"check --config " + bridges:                                           "bridge.yaml:2: bridge.amqp",
		"presence":                                                            "requires at least 1",
		"kick":                                                                "accepts 1",
		"ring owner":                                                          "requires at least 1",
	} {
		t.Run(line, func(t *testing.T) {
			_, stderr, code := execute(t, strings.Fields(line)...)
			if code != exitUsage || !strings.Contains(stderr, says) {
				t.Errorf("exit code %d, %q; want %d and %q", code, stderr, exitUsage, says)
			}
			if strings.Contains(stderr, "hush") {
				t.Errorf("%q shows a password", stderr)
			}
		})
	}
}

// What fails although it was asked for rightly exits with 1.
func TestFailures(t *testing.T) {
	for _, line := range []string{
		"push --to a --text x --timeout 200ms --via 127.0.0.1:1",
		"ring show --via 127.0.0.1:1",
		"presence a --via 127.0.0.1:1",
	} {
		if _, stderr, code := execute(t, strings.Fields(line)...); code != exitFailed || stderr == "" {
			t.Errorf("%s: exit code %d, %q; want %d and a reason", line, code, stderr, exitFailed)
		}
	}
}

// Every command has help with an example, and help is no mistake.
func TestHelp(t *testing.T) {
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Name() == "help" || c.Name() == "completion" || c.Parent() != nil && c.Parent().Name() == "completion" {
			return // cobra's own
		}
		if c.Runnable() && c.Example == "" && c.HasParent() && !c.HasSubCommands() {
			t.Errorf("%s has no example", c.CommandPath())
		}
		args := strings.Fields(c.CommandPath())[1:]
		if stdout, stderr, code := execute(t, append(args, "--help")...); code != 0 || !strings.Contains(stdout, "Usage:") {
			t.Errorf("%s --help: exit code %d, %q %q", c.CommandPath(), code, stdout, stderr)
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(newRoot())
}

func TestCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "edge.yaml")
	text := "listen: [{addr: ':8080'}]\nbackends: b1=127.0.0.1:1\nroutes: [{path: /, service: chat}, {path: /a, service: chat}]\nbackend: {id: b7, listen: '127.0.0.1:9000'}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := execute(t, "check", "--config", file)
	if want := file + ": good: an edge with 1 listener and 2 routes to 1 service (chat); backend b7\n"; code != 0 || stdout != want {
		t.Errorf("exit code %d, %q, %q; want %q", code, stdout, stderr, want)
	}
	if err := os.WriteFile(file, []byte("bridge: {amqp: amqp://u:p@h, queue: chat}\nbackends: b1=127.0.0.1:1/2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code = execute(t, "check", "--config", file)
	if want := file + ": good: a bridge from queue chat\n"; code != 0 || stdout != want {
		t.Errorf("exit code %d, %q, %q; want %q", code, stdout, stderr, want)
	}
	if stdout, _, code := execute(t, "check", "--schema"); code != 0 || !strings.Contains(stdout, `"trusted_proxies"`) {
		t.Errorf("--schema: exit code %d, %.100q", code, stdout)
	}
}

func TestOwnerFromAList(t *testing.T) {
	list := "b1=127.0.0.1:9001,b2=127.0.0.1:9002,b3=127.0.0.1:9003"
	stdout, stderr, code := execute(t, "ring", "owner", "alice", "bob", "--backends", list, "--log-level", "error")
	if code != 0 || stdout != "alice b1\nbob b2\n" {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
	stdout, _, code = execute(t, "ring", "owner", "alice", "--backends", list, "--output", "json", "--log-level", "error")
	if code != 0 || !strings.HasPrefix(stdout, `{"backend":"b1","ring":"`) {
		t.Errorf("exit code %d, %q", code, stdout)
	}
}
