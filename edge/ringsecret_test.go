package edge

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/selvedge/selvedge/hashring"
	"github.com/selvedge/selvedge/internal/config"
)

// Ids that are chosen so that one member of four owns them all reach it without a secret, and are spread like any others with one.
func TestAimedIDs(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "ring")
	if err := os.WriteFile(secret, []byte("0123456789abcdef0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var list []string
	var in []hashring.Member
	for i := range 4 {
		name := fmt.Sprintf("b%d", i)
		in = append(in, hashring.Member{ID: name, Weight: 1})
		list = append(list, name+"="+listenBackend(t, func(conn net.Conn, _ *bufio.Reader, r *http.Request) { say(conn, "%s%s\n", switched(r, ""), name) }))
	}
	ring, err := hashring.New(in) // what a stranger knows: the members' ids and the algorithm
	if err != nil {
		t.Fatal(err)
	}
	var aimed []string
	for i := 0; len(aimed) < 80; i++ {
		if user := fmt.Sprint("u", i); ring.Owner(user) == "b0" {
			aimed = append(aimed, user)
		}
	}
	for file, bounds := range map[string][2]int{"": {80, 80}, secret: {5, 40}} { // a quarter is 20
		flags := map[string]any{"backends": strings.Join(list, ","), "admin.addr": "127.0.0.1:0"}
		if file != "" {
			flags["services"] = map[string]any{DefaultService: map[string]any{"ring_secret_file": file}}
		}
		s, err := config.Load(config.Sources{Env: []string{}, Flags: flags})
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := FromSettings(s, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		e := start(t, cfg)
		hits := 0
		for _, user := range aimed {
			c := e.send(upgradeTo("/ws?user=" + user))
			if c.head(); c.line() == "b0" {
				hits++
			}
			_ = c.Close()
		}
		t.Logf("secret %v: %d of %d aimed ids reach their member", file != "", hits, len(aimed))
		if hits < bounds[0] || hits > bounds[1] {
			t.Errorf("secret %v: %d of %d, want %v", file != "", hits, len(aimed), bounds)
		}
	}
}
