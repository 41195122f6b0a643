package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/ringsim"
)

// selvedge runs the command line in this process.
func selvedge(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&errs)
	err = root.ExecuteContext(t.Context())
	return out.String(), errs.String(), err
}

// prints fails unless the command prints want and nothing else.
func prints(t *testing.T, want string, args ...string) {
	t.Helper()
	stdout, stderr, err := selvedge(t, args...)
	if err != nil || stderr != "" {
		t.Fatalf("selvedge %s: %v, %s", strings.Join(args, " "), err, stderr)
	}
	if got, want := strings.TrimSpace(stdout), strings.TrimSpace(want); got != want {
		t.Errorf("selvedge %s prints\n%s\nwant\n%s", strings.Join(args, " "), got, want)
	}
}

// refuses fails unless the command ends with the code and an error that says so.
func refuses(t *testing.T, code int, says string, args ...string) {
	t.Helper()
	stdout, _, err := selvedge(t, args...)
	if err == nil || codeOf(err) != code || !strings.Contains(err.Error(), says) {
		t.Errorf("selvedge %s: %v; want exit code %d and an error that says %q", strings.Join(args, " "), err, code, says)
	}
	if stdout != "" {
		t.Errorf("selvedge %s: an error, and yet it prints %q", strings.Join(args, " "), stdout)
	}
}

// codeOf is what exitCode returns of an error that is not nil, without printing it.
func codeOf(err error) int {
	var own *exitError
	if errors.As(err, &own) {
		return own.code
	}
	return exitFailed
}

const (
	twoMembers   = "b1=10.0.0.1:9000,b2=10.0.0.2:9000/9100*3"
	threeMembers = twoMembers + ",b3=10.0.0.3:9000"
)

func TestEachRingCommandHasAnExample(t *testing.T) {
	for _, name := range []string{"owner", "show", "diff", "simulate"} {
		stdout, _, err := selvedge(t, "ring", name, "--help")
		if err != nil || !strings.Contains(stdout, "Examples:\n  selvedge ring "+name+" ") {
			t.Errorf("ring %s --help has no example: %v\n%s", name, err, stdout)
		}
	}
}

func TestRingShow(t *testing.T) {
	prints(t, `
service default, ring 12920078cb664782, 2 members on it
MEMBER    SHARE                        WEIGHT  STATE     ADDRESS
b1       25.20%  ███████                    1  serving   10.0.0.1:9000
b2       74.80%  ████████████████████       3  serving   10.0.0.2:9000`,
		"ring", "show", "--backends", twoMembers)
	stdout, _, err := selvedge(t, "ring", "show", "--backends", "é=h:1*0,"+twoMembers, "--output", "json", "--service", "chat")
	var shown ringPrint
	if err != nil || json.Unmarshal([]byte(stdout), &shown) != nil || len(shown.Members) != 3 {
		t.Fatalf("%v: %s", err, stdout)
	}
	if b2 := shown.Members[1]; b2.ID != "b2" || b2.RPC != "10.0.0.2:9100" || b2.Weight != 3 || !b2.InRing || b2.Share < 0.7 ||
		shown.Service != "chat" || len(shown.Ring) != 16 {
		t.Errorf("%s", stdout)
	}
	if out := shown.Members[2]; out.ID != "é" || out.InRing || out.Share != 0 {
		t.Errorf("the member of weight 0: %+v", out)
	}
	refuses(t, exitUsage, "entry 1", "ring", "show", "--backends", "b1")
	refuses(t, exitUsage, "want text or json", "ring", "show", "--backends", twoMembers, "--output", "xml")
	refuses(t, exitFailed, "no member of the service", "ring", "show", "--backends", "b1=h:1*0")
}

func TestRingOwner(t *testing.T) {
	prints(t, "b1", "ring", "owner", "alice", "--backends", twoMembers)
	prints(t, "alice b1\nbob b2", "ring", "owner", "alice", "bob", "--backends", twoMembers)
	refuses(t, exitUsage, "requires at least 1 arg", "ring", "owner", "--backends", twoMembers)
}

// showInto writes what `ring show --output json` prints into a file.
func showInto(t *testing.T, list string) string {
	t.Helper()
	stdout, _, err := selvedge(t, "ring", "show", "--backends", list, "--output", "json")
	if err != nil {
		t.Fatal(err)
	}
	return fileOf(t, stdout)
}

func fileOf(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "ring.json")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestRingDiff(t *testing.T) {
	const want = `
from ring 12920078cb664782, 2 members, to ring 75f6137460de085f, 3 members
19.73% of users move; for these shares 19.73% have to (1.00 times the least possible)

FROM  TO      SHARE
b2    b3     14.62%
b1    b3      5.11%`
	two, three := showInto(t, twoMembers), showInto(t, threeMembers)
	for name, args := range map[string][]string{
		"two lists":           {"--from", twoMembers, "--to", threeMembers},
		"two moments":         {"--from-file", two, "--to-file", three},
		"list and moment":     {"--from", twoMembers, "--to-file", three},
		"moment, and live":    {"--from-file", two, "--backends", threeMembers},
		"live, and then list": {"--to", threeMembers, "--backends", twoMembers},
	} {
		t.Run(name, func(t *testing.T) { prints(t, want, append([]string{"ring", "diff"}, args...)...) })
	}
	prints(t, `
from ring 12920078cb664782, 2 members, to ring 12920078cb664782, 2 members
no user moves`, "ring", "diff", "--from", twoMembers, "--to-file", two)
}

// A ring with a secret is another one, which only who has the secret can make.
func TestRingSecret(t *testing.T) {
	secret := fileOf(t, "thirty-two bytes, or any number from 16 on\n")
	plain, _, err := selvedge(t, "ring", "show", "--backends", twoMembers)
	keyed, _, err2 := selvedge(t, "ring", "show", "--backends", twoMembers, "--ring-secret-file", secret)
	if err != nil || err2 != nil || plain == keyed {
		t.Fatalf("%v, %v: %s%s", err, err2, plain, keyed)
	}
	shown, _, err := selvedge(t, "ring", "show", "--backends", twoMembers, "--ring-secret-file", secret, "--output", "json")
	if err != nil {
		t.Fatal(err)
	}
	before := fileOf(t, shown)
	stdout, _, err := selvedge(t, "ring", "diff", "--from-file", before, "--to", twoMembers, "--ring-secret-file", secret)
	if err != nil || !strings.Contains(stdout, "no user moves") {
		t.Errorf("%v: %s", err, stdout)
	}
	refuses(t, exitUsage, "--ring-secret-file", "ring", "diff", "--from-file", before, "--to", twoMembers)
	refuses(t, exitUsage, "want 16 or more", "ring", "show", "--backends", twoMembers, "--ring-secret-file", fileOf(t, "short"))
	refuses(t, exitUsage, "no such file", "ring", "owner", "a", "--backends", twoMembers, "--ring-secret-file", secret+".none")
}

// What a member tells of a ring with a secret can be used by who has it, and others are told what they lack.
func TestRingSecretOfAMember(t *testing.T) {
	registry := discovery.NewMemory()
	secret := "0123456789abcdef"
	b, err := backend.New(backend.Config{
		ID: "b1", Listen: "127.0.0.1:0", RPC: "127.0.0.1:0",
		Membership: backend.Membership{Memory: registry, RingSecrets: &discovery.RingSecrets{"default": []byte(secret)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	defer func() { stop(); <-ended }()
	<-b.Ready()
	via := b.RPCAddr().String()
	prints(t, "b1", "ring", "owner", "alice", "--via", via, "--ring-secret-file", fileOf(t, secret))
	refuses(t, exitFailed, "--ring-secret-file FILE", "ring", "owner", "alice", "--via", via)
}

func TestRingDiffAsJSON(t *testing.T) {
	for _, ranges := range []bool{false, true} {
		args := []string{"ring", "diff", "--from", twoMembers, "--to", threeMembers, "--output", "json"}
		if ranges {
			args = append(args, "--ranges")
		}
		stdout, _, err := selvedge(t, args...)
		var d diffPrint
		if err != nil || json.Unmarshal([]byte(stdout), &d) != nil {
			t.Fatalf("%v: %s", err, stdout)
		}
		if len(d.Flows) != 2 || d.Moved != d.Flows[0].Share+d.Flows[1].Share || d.Moved != d.Least || d.MovedToLeast != 1 ||
			d.From.Members != 2 || d.To.Members != 3 || len(d.To.Ring) != 16 {
			t.Errorf("%.300s", stdout)
		}
		if !ranges {
			if d.Ranges != nil {
				t.Errorf("%d ranges that nobody asked for", len(d.Ranges))
			}
			continue
		}
		last := ""
		for _, r := range d.Ranges {
			if len(r.First) != 16 || r.First <= last || r.Last < r.First || r.To != "b3" {
				t.Fatalf("after %s: %+v", last, r)
			}
			last = r.Last
		}
		if len(d.Ranges) < 1000 {
			t.Errorf("%d ranges", len(d.Ranges))
		}
	}
	stdout, _, err := selvedge(t, "ring", "diff", "--from", twoMembers, "--to", twoMembers, "--output", "json")
	if err != nil || !strings.Contains(stdout, `"flows":[]`) || !strings.Contains(stdout, `"moved_to_least":1`) {
		t.Errorf("no change: %v, %s", err, stdout)
	}
}

func TestRingDiffPrintsRanges(t *testing.T) {
	stdout, _, err := selvedge(t, "ring", "diff", "--from", "a=h:1", "--to", "b=h:1", "--ranges")
	const want = `
FROM  TO      SHARE
a     b     100.00%

FIRST HASH        LAST HASH         FROM  TO
0000000000000000  ffffffffffffffff  a     b
`
	if err != nil || !strings.HasSuffix(stdout, want) {
		t.Errorf("%v:\n%s", err, stdout)
	}
}

func TestRingDiffRefuses(t *testing.T) {
	two := showInto(t, twoMembers)
	for _, tt := range []struct {
		code int
		says string
		args []string
	}{
		{exitUsage, "nothing to compare with", nil},
		{exitUsage, "nothing to compare with", []string{"--backends", twoMembers}},
		{exitUsage, "both sides are given", []string{"--from", twoMembers, "--to", threeMembers, "--consul", "127.0.0.1:1"}},
		{exitUsage, "both --to and --to-file are given", []string{"--to", twoMembers, "--to-file", two, "--backends", twoMembers}},
		{exitUsage, "--from: sender: backends, entry 1", []string{"--from", "b1", "--to", twoMembers}},
		{exitUsage, "no such file", []string{"--from-file", filepath.Join(t.TempDir(), "none"), "--to", twoMembers}},
		{exitUsage, "not what `selvedge ring show --output json` prints", []string{"--from-file", fileOf(t, "b1"), "--to", twoMembers}},
		{exitUsage, "has it been edited", []string{"--from-file", fileOf(t, `{"ring":"0","members":[{"id":"b1","weight":1,"in_ring":true}]}`), "--to", twoMembers}},
		{exitUsage, "duplicate member", []string{"--to", twoMembers, "--from-file",
			fileOf(t, `{"members":[{"id":"b","weight":1,"in_ring":true},{"id":"b","weight":1,"in_ring":true}]}`)}},
		{exitUsage, "unknown command", []string{"more"}},
	} {
		refuses(t, tt.code, tt.says, append([]string{"ring", "diff"}, tt.args...)...)
	}
}

func TestRingSimulate(t *testing.T) {
	prints(t, `
20000 users, seed 1
STEP   MEMBERS  WEIGHT  PEAK TO MEAN  LEAST TO MEAN       MOVED       LEAST   TIMES  BETWEEN SURVIVORS
start       20      30         1.044          0.923
kill        18      26         1.053          0.945        2689        2689   1.000                  0
add         19      27         1.065          0.944         730         730   1.000                  0
largest load in the end: 789 users on s1-m10`,
		"ring", "simulate", "--members", "20", "--users", "20000", "--kill", "2", "--add", "1", "--weights", "1x10,2x10")

	plot := filepath.Join(t.TempDir(), "out.svg")
	stdout, _, err := selvedge(t, "ring", "simulate", "--members", "5", "--users", "1000", "--seed", "9", "--plot", plot, "--output", "json")
	var r ringsim.Result
	if err != nil || json.Unmarshal([]byte(stdout), &r) != nil || r.Users != 1000 || r.Seed != 9 || len(r.Steps) != 1 || r.Steps[0].Members != 5 {
		t.Errorf("%v: %s", err, stdout)
	}
	if svg, err := os.ReadFile(plot); err != nil || !bytes.Contains(svg, []byte("</svg>")) {
		t.Errorf("plot: %v, %s", err, svg)
	}
}

func TestRingSimulateRefuses(t *testing.T) {
	for _, tt := range []struct {
		says string
		args []string
	}{
		{"0 members", []string{"--members", "0"}},
		{"0 users", []string{"--users", "0"}},
		{"100 to kill: want 0 to 99", []string{"--kill", "100"}},
		{"-1 to add", []string{"--add", "-1"}},
		{`"1-a"`, []string{"--weights", "1-a"}},
		{"weights 1x900,2x100 are for 1000 members", []string{"--weights", "1x900,2x100"}},
		{"total weight", []string{"--weights", "1000"}},
		{"invalid argument", []string{"--seed", "-1"}},
		{"unknown command", []string{"more"}},
	} {
		refuses(t, exitUsage, tt.says, append([]string{"ring", "simulate"}, tt.args...)...)
	}
}

func TestRingSimulateStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	root := newRoot()
	root.SetArgs([]string{"ring", "simulate", "--members", "3", "--users", "1000000000"})
	root.SetOut(new(bytes.Buffer))
	if err := root.ExecuteContext(ctx); err == nil || codeOf(err) != exitFailed || !strings.Contains(err.Error(), "was stopped after 0 of") {
		t.Errorf("%v", err)
	}
}

func TestProgress(t *testing.T) {
	var b strings.Builder
	p := &progress{w: &b, of: 200}
	p.at(100)
	p.at(101) // too soon
	p.clear()
	bar := "\r" + strings.Repeat("█", 15) + strings.Repeat("░", 15) + "  50%"
	if want := bar + "\r" + strings.Repeat(" ", 35) + "\r"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if newProgress(&b, 1) != nil || newProgress(null, 1) != nil {
		t.Error("a bar on what is no terminal")
	}
	var none *progress
	none.at(1)
	none.clear()
}
