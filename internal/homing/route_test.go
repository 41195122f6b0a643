package homing_test

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/selvedge/selvedge/hashring"
	"github.com/selvedge/selvedge/internal/homing"
)

// rings remembers the rings made: worlds draw the same few again and again.
var rings = make(map[string]*hashring.Ring)

func ringOf(t interface{ Fatal(...any) }, ids ...string) *hashring.Ring {
	ids = slices.Sorted(slices.Values(ids))
	key := strings.Join(ids, ",")
	if ring, ok := rings[key]; ok {
		return ring
	}
	members := make([]hashring.Member, 0, len(ids))
	for _, id := range ids {
		members = append(members, hashring.Member{ID: id, Weight: 1})
	}
	ring, err := hashring.New(members)
	if err != nil {
		t.Fatal(err)
	}
	rings[key] = ring
	return ring
}

func TestRoute(t *testing.T) {
	ring := ringOf(t, "b1", "b2", "b3")
	home := ring.Owner("alice")
	var others []string
	for _, id := range []string{"b1", "b2", "b3"} {
		if id != home {
			others = append(others, id)
		}
	}
	away := others[0]
	awayPeers := []string{home, others[1]}
	for _, test := range []struct {
		name string
		view homing.View
		hops int
		want homing.Plan
	}{
		{"at home, calm", homing.View{Ring: ring, Self: home, Peers: others, Calm: true}, homing.FirstHop, homing.Plan{Ask: others}},
		{"at home, not calm", homing.View{Ring: ring, Self: home, Peers: others}, homing.FirstHop, homing.Plan{Ask: others, Always: true}},
		{"away", homing.View{Ring: ring, Self: away, Peers: awayPeers, Calm: true}, homing.FirstHop, homing.Plan{Forward: home}},
		{"away, not calm", homing.View{Ring: ring, Self: away, Peers: awayPeers}, homing.FirstHop, homing.Plan{Forward: home}},
		{"forwarded home, calm", homing.View{Ring: ring, Self: home, Peers: others, Calm: true}, homing.HomeHop, homing.Plan{Ask: others}},
		{"forwarded to one who is not the home", homing.View{Ring: ring, Self: away, Peers: awayPeers, Calm: true}, homing.HomeHop,
			homing.Plan{Ask: awayPeers, Always: true}},
		{"asked", homing.View{Ring: ring, Self: home, Peers: others}, homing.LeafHop, homing.Plan{}},
		{"beyond", homing.View{Ring: ring, Self: away, Peers: awayPeers}, homing.LeafHop + 1, homing.Plan{}},
		{"empty ring", homing.View{Ring: ringOf(t), Self: "b1", Peers: []string{"b2"}, Calm: true}, homing.FirstHop,
			homing.Plan{Ask: []string{"b2"}, Always: true}},
		{"alone", homing.View{Ring: ringOf(t, "b1"), Self: "b1", Calm: true}, homing.FirstHop, homing.Plan{}},
	} {
		got := test.view.Route("alice", test.hops)
		if got.Forward != test.want.Forward || !slices.Equal(got.Ask, test.want.Ask) || got.Always != test.want.Always {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
}

// The laws, over any members, each with a view of its own: however wrong the views are, a push is forwarded at most once, ends
// somewhere, and whoever it ends at either asks all peers it knows or is a calm home with sessions.
func TestRouteLaws(t *testing.T) {
	all := []string{"b1", "b2", "b3", "b4", "b5", "b6"}
	rapid.Check(t, func(t *rapid.T) {
		views := make(map[string]homing.View)
		for _, id := range all {
			in := rapid.SliceOfNDistinct(rapid.SampledFrom(all), 0, len(all), rapid.ID[string]).Draw(t, "ring of "+id)
			peers := slices.DeleteFunc(slices.Clone(all), func(p string) bool { return p == id })
			views[id] = homing.View{Ring: ringOf(t, in...), Self: id, Peers: peers, Calm: rapid.Bool().Draw(t, "calm "+id)}
		}
		user := rapid.StringN(1, 20, -1).Draw(t, "user")
		at := rapid.SampledFrom(all).Draw(t, "first")
		var plan homing.Plan
		hops := homing.FirstHop
		for ; ; hops++ {
			plan = views[at].Route(user, hops)
			if plan.Forward == "" {
				break
			}
			if plan.Forward == at {
				t.Fatalf("%s forwards to itself", at)
			}
			if len(plan.Ask) > 0 {
				t.Fatalf("%s forwards and asks", at)
			}
			at = plan.Forward
			if hops >= homing.HomeHop {
				t.Fatalf("forwarded at hop %d", hops)
			}
		}
		v := views[at]
		if !slices.Equal(plan.Ask, v.Peers) {
			t.Fatalf("%s asks %v of %v: an absence is proved by all or by nobody", at, plan.Ask, v.Peers)
		}
		if mayRest := v.Ring.Owner(user) == at && v.Calm; plan.Always == mayRest {
			t.Fatalf("%s: always %t; calm home: %t", at, plan.Always, mayRest)
		}
		for id, view := range views { // a leaf never asks, whatever it believes
			if leaf := view.Route(user, homing.LeafHop); leaf.Forward != "" || len(leaf.Ask) > 0 || leaf.Always {
				t.Fatalf("leaf %s: %+v", id, leaf)
			}
		}
		if stand := v.Coordinate(false); !stand.Always || !slices.Equal(stand.Ask, v.Peers) || stand.Forward != "" {
			t.Fatalf("in the home's stead: %+v", stand)
		}
	})
}
