package systemtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// bashScript asks for words as bash does. What package bash-completion would split the line with is not needed for words without quotes.
const bashScript = `_get_comp_words_by_ref() { words=("${COMP_WORDS[@]}"); cword=$COMP_CWORD; cur=${words[cword]}; prev=${words[cword-1]}; }
source <(selvedge completion bash)
complete -p selvedge >/dev/null || exit 1
ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9; COMPREPLY=(); __start_selvedge; printf '%s\n' "${COMPREPLY[@]}"; }
ask selvedge pu; ask selvedge push --output j; ask selvedge ring b`

const zshScript = `autoload -U compinit && compinit -u -D && source <(selvedge completion zsh) || exit 1
print $_comps[selvedge]; whence -w _selvedge`

const fishScript = `selvedge completion fish | source
complete -C "selvedge pu"; complete -C "selvedge push --output j"; complete -C "selvedge ring b"`

// The scripts load in the shells that they are for, and propose what there is.
func TestCompletion(t *testing.T) {
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Dir(path)+":"+os.Getenv("PATH"))
	t.Setenv("HOME", t.TempDir())
	for _, test := range []struct {
		shell []string
		want  []string // begin a line each
	}{
		{[]string{"bash", "--norc", "-c", bashScript}, []string{"push", "json", "bury"}},
		{[]string{"zsh", "-f", "-c", zshScript}, []string{"_selvedge", "_selvedge: function"}},
		{[]string{"fish", "--no-config", "-c", fishScript}, []string{"push", "json", "bury"}},
	} {
		t.Run(test.shell[0], func(t *testing.T) {
			if _, err := exec.LookPath(test.shell[0]); err != nil {
				t.Fatalf("%v; `make test` installs it", err)
			}
			out, err := exec.Command(test.shell[0], test.shell[1:]...).CombinedOutput()
			lines := strings.Split(string(out), "\n")
			for _, want := range test.want {
				if err != nil || !slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, want) }) {
					t.Errorf("no %q: %v\n%s", want, err, out)
				}
			}
		})
	}
	for line, want := range map[string]string{ // what each word may be, and whether files are proposed: 0 they are, 4 they are not, 16 folders are
		"edge --engine ": "auto\nsplice\ncopy\n:4\n", "edge --config ": ":0\n", "edge --state-dir ": ":16\n", "push --to ": ":4\n", "presence ": ":4\n",
	} {
		if out, _, code := run(t, "", append([]string{"__complete"}, strings.Split(line, " ")...)...); code != 0 || out != want {
			t.Errorf("selvedge %s: exit code %d, %q, want %q", line, code, out, want)
		}
	}
}

// make build writes a manual page for each command, which mandoc reads without an error.
func TestManualPages(t *testing.T) {
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	pages := filepath.Join(filepath.Dir(path), "man")
	var files []string
	for _, c := range readCommands(t) {
		file := filepath.Join(pages, "selvedge-"+strings.ReplaceAll(c.name, " ", "-")+".1")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Errorf("selvedge %s: %v", c.name, err)
			continue
		}
		for _, want := range []string{".TH \"SELVEDGE", ".SH NAME", ".SH EXAMPLE"} {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s has no %s", file, want)
			}
		}
		files = append(files, file)
	}
	if len(files) < 10 {
		t.Fatalf("%d pages", len(files))
	}
	if out, err := exec.Command("mandoc", append([]string{"-T", "lint", "-W", "error"}, files...)...).CombinedOutput(); err != nil {
		t.Errorf("mandoc (`make test` installs it): %v\n%s", err, out)
	}
	if out, err := exec.Command("mandoc", files[0]).Output(); err != nil || len(out) < 500 {
		t.Errorf("%s: %v, %d bytes", files[0], err, len(out))
	}
}

// Long work draws a bar on a terminal, and nothing where standard error is none.
func TestProgressOnATerminal(t *testing.T) {
	d := startDev(t)
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	users := filepath.Join(t.TempDir(), "users")
	writeFile(t, users, strings.Join(userNames(30_000), "\n"))
	for _, line := range []string{
		fmt.Sprintf("%s push --to-file %s --text hi --timeout 60s --via %s", path, users, d.AdminURL),
		path + " ring simulate --members 10 --users 20000000",
	} {
		out, err := exec.Command("script", "-qec", line+" >/dev/null", "/dev/null").Output()
		if text := string(out); !strings.Contains(text, "░") || !strings.Contains(text, "█") || !strings.Contains(text, "%\r") {
			t.Errorf("%s: no bar: %v, %.300q", line, err, text)
		}
		quiet := exec.Command("sh", "-c", line+" >/dev/null")
		stderr := new(strings.Builder)
		quiet.Stderr = stderr
		_ = quiet.Run() // 3 where nobody is online
		if strings.Contains(stderr.String(), "░") {
			t.Errorf("%s: a bar in a file", line)
		}
	}
}
