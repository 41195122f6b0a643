package discovery

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestStaticList(t *testing.T) {
	tests := map[string][]Member{
		"b1=10.0.0.1:9000": {{ID: "b1", Addr: "10.0.0.1:9000", Weight: 1}},
		"b2=h2:9000/9100*3, b1=[::1]:9000/9100": {
			{ID: "b1", Addr: "[::1]:9000", RPCAddr: "[::1]:9100", Weight: 1},
			{ID: "b2", Addr: "h2:9000", RPCAddr: "h2:9100", Weight: 3},
		},
		"a=[fe80::1%eth0]:1*0":   {{ID: "a", Addr: "[fe80::1%eth0]:1", Weight: 0}},
		"u=unix:/run/b-1.sock*2": {{ID: "u", Addr: "unix:/run/b-1.sock", Weight: 2}},
		"n/chat=h:65535*1000":    {{ID: "n/chat", Addr: "h:65535", Weight: 1000}},
		"a=b.example.com:80/81":  {{ID: "a", Addr: "b.example.com:80", RPCAddr: "b.example.com:81", Weight: 1}},
	}
	for list, want := range tests {
		s, err := NewStatic(list)
		if err != nil {
			t.Errorf("%q: %v", list, err)
			continue
		}
		if !slices.Equal(s.members, want) {
			t.Errorf("%q: %v", list, mismatch(s.members, want))
		}
	}
}

func TestStaticListErrors(t *testing.T) {
	tests := map[string]struct{ entry, says string }{
		"":                                    {`entry 1 ""`, "empty"},
		"a=h:1,":                              {`entry 2 ""`, "empty"},
		"a=h:1,b1":                            {`entry 2 "b1"`, "no ="},
		"=h:1":                                {`entry 1 "=h:1"`, "id is empty"},
		"a=h":                                 {`"a=h"`, "HOST:PORT"},
		"a=:9000":                             {`"a=:9000"`, "no host"},
		"a=h:":                                {`"a=h:"`, "port"},
		"a=h:0":                               {`"a=h:0"`, "port"},
		"a=h:65536":                           {`"a=h:65536"`, "65535"},
		"a=h:http":                            {`"a=h:http"`, "port"},
		"a=::1:9000":                          {`"a=::1:9000"`, "brackets"},
		"a=unix:b.sock":                       {`"a=unix:b.sock"`, "whole path"},
		"a=unix:/a b":                         {`"a=unix:/a b"`, "cannot stand in a socket's path"},
		"a=unix:/" + strings.Repeat("x", 107): {"...", "at most 107"},
		"a=h:1/":                              {`"a=h:1/"`, "RPC port"},
		"a=h:1/0":                             {`"a=h:1/0"`, "RPC port"},
		"a=h:1*":                              {`"a=h:1*"`, "not a number"},
		"a=h:1*-1":                            {`"a=h:1*-1"`, "weight -1"},
		"a=h:1*1001":                          {`"a=h:1*1001"`, "weight 1001"},
		"a=h:1*2/3":                           {`"a=h:1*2/3"`, "not a number"},
		"a=h:1,b=h:2,a=h:3":                   {`entry 3 "a=h:3"`, "entry 1 already"},
		"a=h h:1":                             {`"a=h h:1"`, "host name"},
		strings.Repeat("x", 300) + "":         {"...", "no ="},
	}
	for list, want := range tests {
		_, err := NewStatic(list)
		if err == nil {
			t.Errorf("%q is taken", list)
			continue
		}
		for _, part := range []string{want.entry, want.says, "ID=HOST:PORT[/RPCPORT][*WEIGHT]"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q: %q does not say %q", list, err, part)
			}
		}
	}
}

func TestStaticWatch(t *testing.T) {
	s, err := NewStatic("b=h:2,a=h:1")
	if err != nil {
		t.Fatal(err)
	}
	want := []Member{{ID: "a", Addr: "h:1", Weight: 1}, {ID: "b", Addr: "h:2", Weight: 1}}
	first := watch(t, s, "chat")
	first.await(t, want, "the first watch")
	got, _ := first.last()
	got[0].ID = "changed by its owner"
	watch(t, s, "chat").await(t, want, "a second watch")
}

// FuzzStatic: whatever is taken means what it says, written out again.
func FuzzStatic(f *testing.F) {
	for _, seed := range []string{"b1=10.0.0.1:9000/9100*2,b2=[::1]:1", "a=h:1,a=h:1", "=", "a=[::1", "a=h:1*01", " a = h:1 ", "a==h:1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, list string) {
		s, err := NewStatic(list)
		if err != nil {
			return
		}
		var entries []string
		for _, m := range s.members {
			if validateID(m.ID) != nil || validateWeight(m.Weight) != nil {
				t.Fatalf("taken: %s", show(s.members))
			}
			entry := m.ID + "=" + m.Addr
			if m.RPCAddr != "" {
				_, port, err := splitAddr(m.RPCAddr)
				if err != nil {
					t.Fatal(err)
				}
				entry += fmt.Sprintf("/%d", port)
			}
			entries = append(entries, fmt.Sprintf("%s*%d", entry, m.Weight))
		}
		again, err := NewStatic(strings.Join(entries, ","))
		if err != nil || !slices.Equal(again.members, s.members) {
			t.Fatalf("%q -> %v -> %v, %v", list, entries, again, err)
		}
	})
}
