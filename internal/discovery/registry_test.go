package discovery

import (
	"slices"
	"strings"
	"testing"
)

func TestParseRegistry(t *testing.T) {
	got, err := parseRegistry("f.yaml", []byte(`
# who is where
services:
  chat:
    - {id: b2, addr: "10.0.0.2:9000", rpc: "10.0.0.2:9100", weight: 3, state: draining}
    - id: b1
      addr: "[::1]:9000"
  game: &game
    - {id: g, addr: "h:1", weight: 0}
    - {id: u, addr: "unix:/run/u.sock"}
  copy: *game
  empty: []
`))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]Member{
		"chat": {
			{ID: "b1", Addr: "[::1]:9000", Weight: 1},
			{ID: "b2", Addr: "10.0.0.2:9000", RPCAddr: "10.0.0.2:9100", Weight: 3, State: Draining},
		},
		"game":  {{ID: "g", Addr: "h:1"}, {ID: "u", Addr: "unix:/run/u.sock", Weight: 1}},
		"copy":  {{ID: "g", Addr: "h:1"}, {ID: "u", Addr: "unix:/run/u.sock", Weight: 1}},
		"empty": {},
	}
	if len(got) != len(want) {
		t.Errorf("%d services, want %d", len(got), len(want))
	}
	for name, members := range want {
		if list, named := got[name]; !named || !slices.Equal(list, members) {
			t.Errorf("%s: %v", name, mismatch(list, members))
		}
	}
	if none, err := parseRegistry("f.yaml", []byte("services: {}")); err != nil || len(none) != 0 {
		t.Errorf("no services: %v, %v", none, err)
	}
}

func TestParseRegistryErrors(t *testing.T) {
	tests := map[string]struct{ text, says string }{
		"empty":               {"", "f.yaml: it names no services"},
		"a comment":           {"# nothing\n", "f.yaml: it names no services"},
		"cut short":           {"services:\n", "f.yaml: it names no services"},
		"cut after a name":    {"services:\n  chat:\n", "f.yaml:2: service \"chat\": expected a list"},
		"cut in a member":     {"services:\n  chat:\n  - id: a\n", "f.yaml:3: member \"a\" has no addr"},
		"not YAML":            {"services:\n  chat: []\n x\n", "f.yaml:2: did not find"},
		"tabs":                {"services:\n\tchat: []\n", "f.yaml:2: "},
		"a list":              {"- a\n", "f.yaml:1: the file: expected keys"},
		"two documents":       {"services: {}\n---\nservices: {}\n", "more than one"},
		"unknown key":         {"service:\n  chat: []\n", "f.yaml:1: unknown key \"service\""},
		"key twice":           {"services: {}\nservices: {}\n", "f.yaml:2: the file: key \"services\" stands in line 1"},
		"service twice":       {"services:\n  a: []\n  a: []\n", "f.yaml:3: services: key \"a\" stands in line 2"},
		"member key twice":    {"services:\n  a:\n  - {id: a, id: b}\n", "f.yaml:3: a member: key \"id\""},
		"unknown member key":  {"services:\n  a:\n  - id: b\n    wieght: 2\n", "f.yaml:4: unknown key \"wieght\""},
		"a member is a word":  {"services:\n  a:\n  - b1\n", "f.yaml:3: a member: expected keys"},
		"a member is nothing": {"services:\n  a:\n  -\n", "a member without id"},
		"no id":               {"services:\n  a:\n  - addr: h:1\n", "f.yaml:3: a member without id"},
		"id twice":            {"services:\n  a:\n  - {id: a, addr: 'h:1'}\n  - {id: a, addr: 'h:2'}\n", "f.yaml:4: id \"a\" of service \"a\" stands in line 3"},
		"bad addr":            {"services:\n  a:\n  - id: a\n    addr: h\n", "f.yaml:4: addr: \"h\" is not HOST:PORT"},
		"bad socket":          {"services:\n  a:\n  - {id: a, addr: 'unix:x'}\n", "f.yaml:3: addr: "},
		"addr without host":   {"services:\n  a:\n  - {id: a, addr: ':1'}\n", "no host"},
		"bad rpc":             {"services:\n  a:\n  - {id: a, addr: 'h:1', rpc: 'h:0'}\n", "f.yaml:3: rpc: "},
		"bad weight":          {"services:\n  a:\n  - {id: a, addr: 'h:1', weight: heavy}\n", "f.yaml:3: weight: \"heavy\""},
		"too heavy":           {"services:\n  a:\n  - {id: a, addr: 'h:1', weight: 1001}\n", "1001 is not within"},
		"bad state":           {"services:\n  a:\n  - {id: a, addr: 'h:1', state: up}\n", "\"up\" is none of"},
		"null":                {"services:\n  a:\n  - {id: a, addr: ~}\n", "f.yaml:3: addr: expected a single value"},
		"nested":              {"services:\n  a:\n  - {id: [a], addr: 'h:1'}\n", "f.yaml:3: id: expected a single value"},
		"nameless service":    {"services:\n  '': []\n", "f.yaml:2: a service without a name"},
		"a service is a map":  {"services:\n  a: {b1: 'h:1'}\n", "f.yaml:2: service \"a\": expected a list"},
	}
	for name, test := range tests {
		got, err := parseRegistry("f.yaml", []byte(test.text))
		if err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want it to say %q", name, err, test.says)
		}
		if got != nil {
			t.Errorf("%s: members beside an error", name)
		}
	}
}

func FuzzParseRegistry(f *testing.F) {
	f.Add([]byte("services: {chat: [{id: b1, addr: 'h:1', rpc: 'h:2', weight: 3, state: joining}]}"))
	f.Add([]byte("services:\n  a: &x\n  - {id: a, addr: 'h:1'}\n  b: *x\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("services: {? [a] : b}\n---\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		services, err := parseRegistry("f", data)
		if err != nil {
			if services != nil {
				t.Fatal("members beside an error")
			}
			return
		}
		for _, members := range services {
			v := NewView("s", nil, nil)
			v.update(slices.Clone(members))
			if !slices.Equal(v.Snapshot().Members, members) {
				t.Fatalf("a view does not take them: %s", show(members))
			}
		}
	})
}
