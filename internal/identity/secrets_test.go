package identity

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Two secrets: 32 bytes 0x01 and 32 bytes 0x02.
const (
	ones = "0101010101010101010101010101010101010101010101010101010101010101"
	twos = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="
)

func secretsOf(t testing.TB, lines ...string) *Secrets {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secrets")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := ReadSecrets(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestReadSecrets(t *testing.T) {
	for name, c := range map[string]struct{ text, says string }{
		"nothing":             {"", "openssl rand"},
		"comments only":       {"# none yet\n\n", "holds no secret"},
		"a password":          {"correct horse battery staple\n", ":1: this is neither base64 nor hex"},
		"short hex":           {"00ff00ff\n", ":1: this secret has 4 bytes"},
		"short base64":        {"# new\nAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIC\n", ":2: this secret has 30 bytes"},
		"the same twice":      {ones + "\n" + strings.ToUpper(ones) + "\n", ":2: the secret of line 1 again"},
		"the same in two":     {twos + "\n\n" + strings.TrimRight(twos, "="), ":3: the secret of line 1 again"},
		"too many":            {many(9), "at most 8"},
		"hex":                 {ones, ""},
		"base64, with CRLF":   {twos + "\r\n", ""},
		"two and a comment":   {"# of May\n" + ones + "\n  " + twos + "\n", ""},
		"base64url, unpadded": {strings.Repeat("-_", 24), ""},
	} {
		path := filepath.Join(t.TempDir(), "s")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := ReadSecrets(path)
		switch {
		case c.says == "" && err != nil, c.says != "" && err == nil:
			t.Errorf("%s: %v", name, err)
		case err != nil && (!strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), path)):
			t.Errorf("%s: %q does not say %q and which file", name, err, c.says)
		case err != nil && len(c.text) > 30 && strings.Contains(err.Error(), strings.TrimSpace(c.text)):
			t.Errorf("%s: %q repeats the secret", name, err)
		}
	}
	if _, err := ReadSecrets("/does/not/exist"); err == nil {
		t.Error("a file that is not there: no error")
	}
}

func many(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(string("0123456789abcdef"[i]), 64) + "\n")
	}
	return b.String()
}

// A change of secrets while everything runs: the new one is known first, then it signs, then the old one goes. What is broken changes nothing.
func TestFollow(t *testing.T) {
	s := secretsOf(t, ones)
	s.poll = 10 * time.Millisecond
	told := make(chan error)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go s.Follow(ctx, func(err error) { told <- err })
	id := s.first().id
	for _, step := range []struct {
		text  string
		first bool // ones still signs
		fails bool
	}{{ones + "\n" + twos, true, false}, {"broken", true, true}, {twos + "\n" + ones, false, false}} {
		replace(t, s.path, step.text)
		select {
		case err := <-told:
			if (err != nil) != step.fails {
				t.Errorf("%q: %v", step.text, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%q: nobody noticed", step.text)
		}
		if (s.first().id == id) != step.first || s.named(id) == nil {
			t.Errorf("%q: signs with %v, knows %v: %v", step.text, s.first().id, id, s.named(id) != nil)
		}
	}
}

// replace puts a whole file in the place of another, so that nobody reads half of it.
func replace(t *testing.T, path, text string) {
	t.Helper()
	err := os.WriteFile(path+".new", []byte(text), 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		t.Fatal(err)
	}
}
