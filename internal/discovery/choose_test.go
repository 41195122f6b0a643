package discovery

import (
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
	"pgregory.net/rapid"
)

// entry is an instance as Consul reports one of ours; change spoils it.
func entry(id string, change ...func(*api.ServiceEntry)) *api.ServiceEntry {
	e := &api.ServiceEntry{
		Node: &api.Node{Node: "n1", Address: "10.0.0.1"},
		Service: &api.AgentService{
			ID: id, Service: "chat", Address: "10.0.0.2", Port: 9000,
			Weights: api.AgentWeights{Passing: 1, Warning: 1},
			Meta: map[string]string{
				metaID: id, metaRPC: "10.0.0.2:9100", metaIncarnation: "5", metaState: "serving",
			},
		},
		Checks: api.HealthChecks{{CheckID: "serfHealth", Status: "passing"}, {CheckID: "service:" + id, Status: "passing"}},
	}
	for _, f := range change {
		f(e)
	}
	return e
}

func meta(key, value string) func(*api.ServiceEntry) {
	return func(e *api.ServiceEntry) { e.Service.Meta[key] = value }
}

func status(words ...string) func(*api.ServiceEntry) {
	return func(e *api.ServiceEntry) {
		e.Checks = nil
		for _, w := range words {
			e.Checks = append(e.Checks, &api.HealthCheck{CheckID: "c", Status: w})
		}
	}
}

func weights(passing, warning int) func(*api.ServiceEntry) {
	return func(e *api.ServiceEntry) { e.Service.Weights = api.AgentWeights{Passing: passing, Warning: warning} }
}

func TestChoose(t *testing.T) {
	base := Member{ID: "b1", Incarnation: 5, Addr: "10.0.0.2:9000", RPCAddr: "10.0.0.2:9100", Weight: 1}
	with := func(change func(*Member)) []Member {
		m := base
		change(&m)
		return []Member{m}
	}
	foreign := func(e *api.ServiceEntry) { e.Service.Meta = nil }
	tests := map[string]struct {
		entries []*api.ServiceEntry
		want    []Member
		problem string // "": none
	}{
		"none":    {nil, nil, ""},
		"one":     {[]*api.ServiceEntry{entry("b1")}, []Member{base}, ""},
		"joining": {[]*api.ServiceEntry{entry("b1", meta(metaState, "joining"))}, with(func(m *Member) { m.State = Joining }), ""},
		"draining": {[]*api.ServiceEntry{entry("b1", meta(metaState, "draining"))},
			with(func(m *Member) { m.State = Draining }), ""},
		"a state of tomorrow": {[]*api.ServiceEntry{entry("b1", meta(metaState, "resting"))},
			with(func(m *Member) { m.State = Joining }), `"resting"`},
		"public URL": {[]*api.ServiceEntry{entry("b1", meta(metaPublicURL, "wss://b1.example.com"))},
			with(func(m *Member) { m.PublicURL = "wss://b1.example.com" }), ""},
		"garbage public URL": {[]*api.ServiceEntry{entry("b1", meta(metaPublicURL, "b1.example.com"))}, []Member{base}, "URL"},

		"warning has a weight of its own": {[]*api.ServiceEntry{entry("b1", status("passing", "warning"), weights(5, 2))},
			with(func(m *Member) { m.Health, m.Weight = Warning, 2 }), ""},
		"weight 0, as we announce it": {[]*api.ServiceEntry{entry("b1", status("warning"), weights(1, 0))},
			with(func(m *Member) { m.Health, m.Weight = Warning, 0 }), ""},
		"critical": {[]*api.ServiceEntry{entry("b1", status("passing", "critical"))}, with(func(m *Member) { m.Health = Critical }), ""},
		"maintenance": {[]*api.ServiceEntry{entry("b1", func(e *api.ServiceEntry) { e.Checks[0].CheckID = api.NodeMaint })},
			with(func(m *Member) { m.Health, m.State = Critical, Draining }), ""},
		"a word of tomorrow": {[]*api.ServiceEntry{entry("b1", status("passing", "sleepy"))},
			with(func(m *Member) { m.Health = Critical }), ""},
		"no checks at all": {[]*api.ServiceEntry{entry("b1", status())}, []Member{base}, ""},
		"heavy": {[]*api.ServiceEntry{entry("b1", weights(65535, 1))},
			with(func(m *Member) { m.Weight = MaxWeight }), "65535"},
		"negative": {[]*api.ServiceEntry{entry("b1", weights(-3, 1))}, with(func(m *Member) { m.Weight = 0 }), "-3"},

		"not ours": {[]*api.ServiceEntry{entry("chat:1", foreign)},
			[]Member{{ID: "n1/chat:1", Addr: "10.0.0.2:9000", Weight: 1}}, ""},
		"the node's address": {[]*api.ServiceEntry{entry("b1", func(e *api.ServiceEntry) { e.Service.Address = "" })},
			with(func(m *Member) { m.Addr = "10.0.0.1:9000" }), ""},
		"IPv6": {[]*api.ServiceEntry{entry("b1", func(e *api.ServiceEntry) { e.Service.Address = "2001:db8::1" })},
			with(func(m *Member) { m.Addr = "[2001:db8::1]:9000" }), ""},
		"RPC on the member's host": {[]*api.ServiceEntry{entry("b1", meta(metaRPC, ":9100"))}, []Member{base}, ""},
		"no RPC":                   {[]*api.ServiceEntry{entry("b1", meta(metaRPC, ""))}, with(func(m *Member) { m.RPCAddr = "" }), ""},
		"garbage RPC": {[]*api.ServiceEntry{entry("b1", meta(metaRPC, "10.0.0.2"))},
			with(func(m *Member) { m.RPCAddr = "" }), metaRPC},
		"garbage incarnation": {[]*api.ServiceEntry{entry("b1", meta(metaIncarnation, "-1"))},
			with(func(m *Member) { m.Incarnation = 0 }), metaIncarnation},
		"huge incarnation": {[]*api.ServiceEntry{entry("b1", meta(metaIncarnation, "99999999999999999999"))},
			with(func(m *Member) { m.Incarnation = 0 }), metaIncarnation},

		"no port":       {[]*api.ServiceEntry{entry("b1", func(e *api.ServiceEntry) { e.Service.Port = 0 }), entry("b2")}, with(func(m *Member) { m.ID = "b2" }), "port 0"},
		"absurd port":   {[]*api.ServiceEntry{entry("b1", func(e *api.ServiceEntry) { e.Service.Port = 70000 })}, nil, "port 70000"},
		"no address":    {[]*api.ServiceEntry{entry("b1", func(e *api.ServiceEntry) { e.Service.Address, e.Node.Address = "", "" })}, nil, "no address"},
		"garbage id":    {[]*api.ServiceEntry{entry("b1", meta(metaID, "b\n1"))}, nil, "control"},
		"long id":       {[]*api.ServiceEntry{entry("b1", meta(metaID, strings.Repeat("b", 300)))}, nil, "300 bytes"},
		"holes":         {[]*api.ServiceEntry{nil, {Node: &api.Node{}}, {Service: &api.AgentService{}}, entry("b1")}, []Member{base}, "without a node"},
		"empty id meta": {[]*api.ServiceEntry{entry("b1", meta(metaID, ""))}, with(func(m *Member) { m.ID = "n1/b1" }), ""},

		"the higher incarnation wins, whatever its health": {[]*api.ServiceEntry{
			entry("b1", meta(metaIncarnation, "10")), entry("b1", meta(metaIncarnation, "11"), status("critical")), entry("b1"),
		}, with(func(m *Member) { m.Incarnation, m.Health = 11, Critical }), ""},
		"two claim the same": {[]*api.ServiceEntry{
			entry("b1", status("critical")), entry("b1", func(e *api.ServiceEntry) { e.Service.Address = "10.0.0.3" }),
		}, with(func(m *Member) { m.Addr = "10.0.0.3:9000" }), "both 10.0.0.3:9000 and 10.0.0.2:9000; taking 10.0.0.3"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, problems := choose(test.entries)
			if !slices.Equal(got, test.want) {
				t.Error(mismatch(got, test.want))
			}
			switch all := strings.Join(problems, "\n"); {
			case test.problem == "" && len(problems) > 0:
				t.Errorf("problems: %s", all)
			case !strings.Contains(all, test.problem):
				t.Errorf("problems %q do not say %q", all, test.problem)
			}
		})
	}
}

// TestChooseLaw: whatever stands in the catalogue, the members are sorted, one per id, fit for a ring, and the same in any order.
func TestChooseLaw(t *testing.T) {
	genEntry := rapid.Custom(func(t *rapid.T) *api.ServiceEntry {
		e := entry(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "id"))
		e.Service.Meta[metaIncarnation] = rapid.SampledFrom([]string{"1", "2", "x", ""}).Draw(t, "incarnation")
		e.Service.Meta[metaState] = rapid.SampledFrom([]string{"serving", "draining", "?"}).Draw(t, "state")
		e.Service.Meta[metaRPC] = rapid.SampledFrom([]string{"", "h:1", "h"}).Draw(t, "rpc")
		e.Service.Port = rapid.IntRange(-1, 3).Draw(t, "port")
		e.Service.Weights.Passing = rapid.IntRange(-1, 70000).Draw(t, "weight")
		status(rapid.SampledFrom([]string{"passing", "warning", "critical"}).Draw(t, "status"))(e)
		return e
	})
	rapid.Check(t, func(t *rapid.T) {
		entries := rapid.SliceOfN(genEntry, 0, 8).Draw(t, "entries")
		got, problems := choose(entries)
		for i, m := range got {
			if validateID(m.ID) != nil || validateWeight(m.Weight) != nil || i > 0 && got[i-1].ID >= m.ID {
				t.Fatalf("not fit for a ring: %s", show(got))
			}
		}
		again, problemsAgain := choose(rapid.Permutation(entries).Draw(t, "shuffled"))
		if !slices.Equal(got, again) {
			t.Fatalf("%v", mismatch(again, got))
		}
		if len(problems) != len(problemsAgain) {
			t.Fatalf("problems depend on the order: %q, %q", problems, problemsAgain)
		}
	})
}
