package systemtest

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/selvedge/selvedge/internal/testkit"
)

// Each way to say to whom and what, and each exit code.
func TestPushCommand(t *testing.T) {
	d := startDev(t)
	edge := strings.TrimPrefix(d.URL, "http://")
	var alice device
	alice.url = "/ws?user=alice"
	conn, err := alice.dial(t.Context(), edge)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(60 * time.Second))
	bob := online(t, []string{"bob"}, 2, &frontDoor{addr: edge})
	testkit.Eventually(t, 20*time.Second, func() bool { _, _, code := run(t, "", "presence", "alice", "--via", d.AdminURL); return code == 0 }, "alice to be there")

	dir := t.TempDir()
	users, blob := filepath.Join(dir, "users"), filepath.Join(dir, "blob")
	writeFile(t, users, "alice\r\n\nnobody\n")
	writeFile(t, blob, "\x00\xff binary")
	for _, test := range []struct {
		args  []string
		stdin string
		code  int
		says  []string
		op    ws.OpCode
		gets  string // alice; "": nothing
	}{
		{[]string{"--to", "alice,nobody", "--text", "by text"}, "", 0, []string{"alice: delivered to 1 session", "nobody: offline"}, ws.OpText, "by text"},
		{[]string{"--to", "alice"}, "by standard input", 0, []string{"alice: delivered to 1 session"}, ws.OpText, "by standard input"},
		{[]string{"--to-file", users, "--text", "by a list"}, "", 0, []string{"alice: delivered to 1 session", "nobody: offline"}, ws.OpText, "by a list"},
		{[]string{"--to-file", "-", "--file", blob, "--binary"}, "alice\n", 0, []string{"alice: delivered"}, ws.OpBinary, "\x00\xff binary"},
		{[]string{"--all", "--text", "to all"}, "", 0, []string{"delivered to 3 sessions"}, ws.OpText, "to all"},
		{[]string{"--to", "alice", "--text", "once", "--message-id", "m1"}, "", 0, []string{"alice: delivered"}, ws.OpText, "once"},
		{[]string{"--to", "alice", "--text", "twice", "--message-id", "m1"}, "", 1, []string{"alice: not certain: already_exists"}, 0, ""},
		{[]string{"--to", "nobody", "--text", "x"}, "", 3, []string{"nobody: offline"}, 0, ""},
		{[]string{"--to", "alice", "--file", blob}, "", 1, []string{"alice: not certain: invalid_argument"}, 0, ""}, // no text
		{[]string{"--to-file", filepath.Join(dir, "none"), "--text", "x"}, "", 2, nil, 0, ""},
		{[]string{"--to-file", "-"}, "alice\n", 2, nil, 0, ""},
		{[]string{"--text", "x"}, "", 2, nil, 0, ""},
	} {
		stdout, stderr, code := run(t, test.stdin, append([]string{"push", "--via", d.AdminURL}, test.args...)...)
		if code != test.code || (code != 0) != (stderr != "") {
			t.Errorf("push %q: exit code %d, %s%s; want %d", test.args, code, stdout, stderr, test.code)
		}
		lines := strings.Split(stdout, "\n")
		for _, want := range test.says {
			if !slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, want) }) {
				t.Errorf("push %q: %q, want a line that begins with %q", test.args, stdout, want)
			}
		}
		if test.gets == "" {
			continue
		}
		if op, payload, err := readFrame(conn); err != nil || op != test.op || string(payload) != test.gets {
			t.Errorf("push %q: alice got %v %q, %v", test.args, op, payload, err)
		}
	}
	bob.wantOnce("to all")
}

// A list of more users than go into one push is one push all the same: in order, under one id.
func TestPushOfManyBatches(t *testing.T) {
	d := startDev(t)
	names := userNames(12_001)
	crowd := online(t, []string{names[0], names[12_000]}, 1, &frontDoor{addr: strings.TrimPrefix(d.URL, "http://")})
	file := filepath.Join(t.TempDir(), "users")
	writeFile(t, file, strings.Join(names, "\n"))
	type line struct {
		User, Outcome string
		MessageID     string `json:"message_id"`
	}
	lines, code := runJSON[line](t, "push", "--to-file", file, "--text", "hi", "--timeout", "60s", "--via", d.AdminURL)
	if code != 0 || len(lines) != len(names) {
		t.Fatalf("exit code %d, %d lines", code, len(lines))
	}
	for i, l := range lines {
		if l.User != names[i] || l.MessageID == "" || l.MessageID != lines[0].MessageID {
			t.Fatalf("line %d: %+v", i, l)
		}
	}
	crowd.wantOnce("hi")
}
