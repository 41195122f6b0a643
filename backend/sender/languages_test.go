package sender_test

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/backend/backendtest"
)

// interpreters run the programs of EXAMPLES.md, which they get by standard input.
var interpreters = map[string][]string{
	"sh":     {"sh", "-s"},
	"php":    {"php"},
	"python": {"python3", "-"},
	"js":     {"node", "--input-type=module", "-"},
}

var (
	fenced   = regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```\n")
	changing = regexp.MustCompile(`"(id|since|address)":"[^"]*"`) // from run to run
)

// The programs of EXAMPLES.md print what stands below them, where their language is there.
func TestExamplesInOtherLanguages(t *testing.T) {
	text, err := os.ReadFile("EXAMPLES.md")
	if err != nil {
		t.Fatal(err)
	}
	m := backendtest.New(t, backend.Config{ID: "b1"})
	header := ws.HandshakeHeaderHTTP(http.Header{backend.UserHeader: {"alice"}})
	alice, _, _, err := ws.Dialer{Header: header}.Dial(context.Background(), "ws://"+m.Addr().String()+"/?device=phone")
	if err != nil {
		t.Fatal(err)
	}
	defer alice.Close()
	blocks := fenced.FindAllStringSubmatch(string(text), -1)
	if len(blocks) != 10 {
		t.Fatalf("%d blocks; want five programs, each with what it prints", len(blocks))
	}
	for ; len(blocks) >= 2; blocks = blocks[2:] {
		language, program, want := blocks[0][1], blocks[0][2], blocks[1][2]
		t.Run(language, func(t *testing.T) {
			command, known := interpreters[language]
			if !known || blocks[1][1] != "text" {
				t.Fatalf("a block of %q and one of %q; want a program and what it prints", language, blocks[1][1])
			}
			if _, err := exec.LookPath(command[0]); err != nil {
				t.Skipf("%v; `make deps` installs what a Debian needs", err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, command[0], command[1:]...)
			cmd.Env = append(os.Environ(), "RPC="+m.RPCAddr().String())
			cmd.Stdin = strings.NewReader(program)
			out, err := cmd.CombinedOutput()
			got := changing.ReplaceAllString(string(out), `"$1":""`)
			if want = changing.ReplaceAllString(want, `"$1":""`); err != nil || got != want {
				t.Errorf("%v; printed\n%swant\n%s", err, got, want)
			}
		})
	}
}
