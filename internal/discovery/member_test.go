package discovery

import (
	"fmt"
	"strings"
	"testing"
)

func show(members []Member) string {
	var b strings.Builder
	for _, m := range members {
		fmt.Fprintf(&b, "{%s inc=%d %v %v %s rpc=%s url=%s w=%d} ", m.ID, m.Incarnation, m.State, m.Health, m.Addr, m.RPCAddr, m.PublicURL, m.Weight)
	}
	return b.String()
}

func TestInRing(t *testing.T) {
	good := Member{ID: "a", Addr: "h:1", Weight: 1}
	tests := map[string]struct {
		change func(*Member)
		want   bool
	}{
		"passing and serving": {func(*Member) {}, true},
		"warning":             {func(m *Member) { m.Health = Warning }, true},
		"critical":            {func(m *Member) { m.Health = Critical }, false},
		"joining":             {func(m *Member) { m.State = Joining }, false},
		"draining":            {func(m *Member) { m.State = Draining }, false},
		"weight 0":            {func(m *Member) { m.Weight = 0 }, false},
	}
	for name, test := range tests {
		m := good
		test.change(&m)
		if got := m.InRing(); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestStateWords(t *testing.T) {
	for _, s := range []State{Serving, Joining, Draining} {
		if got, err := ParseState(s.String()); err != nil || got != s {
			t.Errorf("%v: parsed back as %v, %v", s, got, err)
		}
	}
	for _, word := range []string{"", "Serving", "serving ", "gone"} {
		if s, err := ParseState(word); err == nil {
			t.Errorf("%q is taken for %v", word, s)
		}
	}
}

func TestValidateID(t *testing.T) {
	for _, id := range []string{"b1", "node-1/chat:1", "b 1", "Löwe", strings.Repeat("x", maxIDBytes)} {
		if err := validateID(id); err != nil {
			t.Errorf("%q: %v", id, err)
		}
	}
	for _, id := range []string{"", "a\nb", "a\x00", "\xff", "a\u0085", strings.Repeat("x", maxIDBytes+1)} {
		if validateID(id) == nil {
			t.Errorf("%q is taken", id)
		}
	}
}
