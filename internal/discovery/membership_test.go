package discovery

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMembershipOpens(t *testing.T) {
	file := filepath.Join(t.TempDir(), "members.yaml")
	if err := os.WriteFile(file, []byte("services: {chat: [{id: a, addr: 'h:1'}]}"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		m         Membership
		announces bool
	}{
		"consul":   {Membership{Consul: &ConsulConfig{}}, true},
		"backends": {Membership{Backends: "a=h:1"}, false},
		"registry": {Membership{Registry: file}, false},
		"memory":   {Membership{Memory: NewMemory()}, true},
	}
	for name, test := range tests {
		src, err := test.m.Open("chat", testLog(t))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, announces := src.(Announcer); announces != test.announces {
			t.Errorf("%s: announces: %v", name, announces)
		}
	}
}

func TestMembershipErrors(t *testing.T) {
	tests := map[string]struct {
		m    Membership
		says string
	}{
		"none":          {Membership{}, "exactly one"},
		"two":           {Membership{Backends: "a=h:1", Registry: "f"}, "exactly one"},
		"a bad list":    {Membership{Backends: "a"}, `entry 1 "a"`},
		"no such file":  {Membership{Registry: "no/such.yaml"}, "no/such.yaml"},
		"a bad address": {Membership{Consul: &ConsulConfig{Addr: "ftp://x"}}, "consul"},
	}
	for name, test := range tests {
		src, err := test.m.Open("chat", nil)
		if err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want it to say %q", name, err, test.says)
		}
		if src != nil {
			t.Errorf("%s: a source beside an error", name)
		}
	}
	if _, err := (Membership{Backends: "a=h:1"}).Open("", nil); err == nil {
		t.Error("a service without a name")
	}
}
