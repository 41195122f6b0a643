package systemtest

import (
	"slices"
	"strings"
	"testing"
)

// documented is a command of the binary, as its help shows it.
type documented struct {
	name     string
	examples []string
	listens  bool // takes ports that others use
	serves   bool // runs until it is told to stop, or may
}

// readCommands walks the binary's help.
func readCommands(t *testing.T, path ...string) (commands []documented) {
	t.Helper()
	help, stderr, code := run(t, "", append(slices.Clone(path), "--help")...)
	if code != 0 {
		t.Fatalf("%v --help: exit code %d, %s", path, code, stderr)
	}
	section := func(name string) (lines []string) {
		_, rest, _ := strings.Cut(help, "\n"+name+":\n")
		text, _, _ := strings.Cut(rest, "\n\n")
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line != "" {
				lines = append(lines, line)
			}
		}
		return lines
	}
	below := section("Available Commands")
	for _, line := range below {
		name, _, _ := strings.Cut(line, " ")
		if name != "help" && name != "completion" { // not ours
			commands = append(commands, readCommands(t, append(slices.Clone(path), name)...)...)
		}
	}
	if len(below) > 0 {
		return commands
	}
	c := documented{name: strings.Join(path, " "), examples: section("Examples"), listens: strings.Contains(help, "--listen "), serves: strings.Contains(help, "--admin ")}
	if len(c.examples) == 0 {
		t.Errorf("selvedge %s has no example", c.name)
	}
	return []documented{c}
}
