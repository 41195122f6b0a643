package backend_test

import (
	"strings"
	"testing"

	"github.com/selvedge/selvedge/backend"
)

// Tokens count at once; what cannot change is named, and leaves the tokens as they were.
func TestReload(t *testing.T) {
	var cfg backend.Config
	b := newCluster(t, 1, func(c *backend.Config) {
		c.Admin, c.RPCToken, c.PeerToken, c.AdminToken = "127.0.0.1:0", "old", "peer", "old"
		cfg = *c
	}).members[0]
	operator, push := "http://"+b.AdminAddr().String()+"/metrics", "http://"+b.RPCAddr().String()+"/selvedge.push.v1.PushService/Push"
	wants := func(token string, operates, pushes int) {
		t.Helper()
		if code, _ := get(t, operator, token); code != operates {
			t.Errorf("admin with %q: %d, want %d", token, code, operates)
		}
		if code, _ := get(t, push, token); code != pushes { // a GET is refused, once it is let in
			t.Errorf("RPC with %q: %d, want %d", token, code, pushes)
		}
	}
	wants("old", 200, 405)
	wants("new", 401, 401)

	next := cfg
	next.RPCToken, next.AdminToken, next.Weight = "new", "new", 7
	if err := b.Reload(next); err == nil || !strings.Contains(err.Error(), "Weight") {
		t.Errorf("another weight: %v", err)
	}
	next.Weight = -1
	if err := b.Reload(next); err == nil || !strings.Contains(err.Error(), "1 to 1,000") {
		t.Errorf("a wrong weight: %v", err)
	}
	wants("old", 200, 405)
	next.Weight = cfg.Weight
	if err := b.Reload(next); err != nil {
		t.Fatal(err)
	}
	wants("old", 401, 401)
	wants("new", 200, 405)
}
