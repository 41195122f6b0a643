package main

import (
	"github.com/buraksezer/consistent"
	"github.com/cespare/xxhash/v2"
	"github.com/dgryski/go-jump"
	"github.com/dgryski/go-mpchash"
	lafikl "github.com/lafikl/consistent"
	"github.com/selvedge/selvedge/hashring"
	serialx "github.com/serialx/hashring"
)

type member struct {
	id     string
	weight int
}

// A table knows who owns a key.
type table struct {
	owner  func(key string) string
	shares func() map[string]float64 // exact; nil where the table cannot tell, and keys have to be counted
	add    func(m member)            // as the package adds to what is there; nil where it has to be built anew
}

// A contender builds tables.
type contender struct {
	name    string
	about   string
	weights bool // it knows weights
	build   func(members []member) table
}

// contenders has ours first. Where a package lets the caller choose a hash, it is xxHash64, as with us.
var contenders = []contender{
	{"selvedge/hashring", "4,096 points per unit of weight", true, func(members []member) table {
		r := ours(members)
		return table{owner: r.Owner, shares: ourShares(r), add: func(m member) {
			if _, err := r.With(hashring.Member{ID: m.id, Weight: m.weight}); err != nil {
				panic(err) // members are the bench's own
			}
		}}
	}},
	{"nginx", "ketama's parameters: 160 points per unit of weight", true, func(members []member) table {
		r := newPointRing(members, perWeight(members, 160), false)
		return table{owner: r.Owner, shares: r.shares}
	}},
	{"HAProxy", "16 points per unit of weight; the nearest of both sides", true, func(members []member) table {
		r := newPointRing(members, perWeight(members, 16), true)
		return table{owner: r.Owner, shares: r.shares}
	}},
	{"Envoy ring hash", "its defaults: 1,024 points in all", true, func(members []member) table {
		r := newPointRing(members, inAll(members, 1024), false)
		return table{owner: r.Owner, shares: r.shares}
	}},
	{"Maglev", "65,537 slots", true, func(members []member) table {
		t := newMaglev(members)
		return table{owner: t.Owner, shares: t.shares}
	}},
	{"buraksezer/consistent", "its defaults: 271 partitions, 20 points, load 1.25", false, partitioned(consistent.Config{})},
	{"buraksezer/consistent*", "tuned to our balance: 20,011 partitions, 20 points, load 1.05", false,
		partitioned(consistent.Config{PartitionCount: 20011, ReplicationFactor: 20, Load: 1.05})},
	{"lafikl/consistent", "10 points, BLAKE2b; look-up without its loads", false, func(members []member) table {
		c := lafikl.New()
		for _, m := range members {
			c.Add(m.id)
		}
		owner := func(key string) string {
			id, _ := c.Get(key) // fails where there is no member
			return id
		}
		return table{owner: owner, add: func(m member) { c.Add(m.id) }}
	}},
	{"serialx/hashring", "its defaults: one point per unit of weight, MD5", true, func(members []member) table {
		weights := make(map[string]int)
		for _, m := range members {
			weights[m.id] = m.weight
		}
		r := serialx.NewWithWeights(weights)
		owner := func(key string) string {
			id, _ := r.GetNode(key)
			return id
		}
		return table{owner: owner, add: func(m member) { r.AddWeightedNode(m.id, m.weight) }}
	}},
	{"dgryski/go-jump", "members are numbers without gaps", false, func(members []member) table {
		all := ids(members)
		owner := func(key string) string { return all[jump.Hash(xxhash.Sum64String(key), len(all))] }
		return table{owner: owner}
	}},
	{"dgryski/go-mpchash", "21 probes", false, func(members []member) table {
		seeded := func(b []byte, seed uint64) uint64 { return mix(xxhash.Sum64(b) + seed) }
		m := mpchash.New(ids(members), seeded, [2]uint64{1, 2}, 21)
		return table{owner: m.Hash}
	}},
}

func ids(members []member) []string {
	all := make([]string, len(members))
	for i, m := range members {
		all[i] = m.id
	}
	return all
}

func ours(members []member) *hashring.Ring {
	in := make([]hashring.Member, len(members))
	for i, m := range members {
		in[i] = hashring.Member{ID: m.id, Weight: m.weight}
	}
	r, err := hashring.New(in)
	if err != nil {
		panic(err) // members are the bench's own
	}
	return r
}

func ourShares(r *hashring.Ring) func() map[string]float64 {
	return func() map[string]float64 {
		shares := make(map[string]float64)
		for _, m := range r.Members() {
			shares[m.ID] = r.Share(m.ID)
		}
		return shares
	}
}

// named and xxh64 are what buraksezer/consistent wants of its caller.
type (
	named string
	xxh64 struct{}
)

func (n named) String() string      { return string(n) }
func (xxh64) Sum64(b []byte) uint64 { return xxhash.Sum64(b) }

func partitioned(cfg consistent.Config) func([]member) table {
	cfg.Hasher = xxh64{}
	return func(members []member) table {
		in := make([]consistent.Member, len(members))
		for i, m := range members {
			in[i] = named(m.id)
		}
		c := consistent.New(in, cfg)
		shares := func() map[string]float64 {
			loads, sum := c.LoadDistribution(), 0.0
			for _, l := range loads {
				sum += l
			}
			for id := range loads {
				loads[id] /= sum
			}
			return loads
		}
		owner := func(key string) string { return c.LocateKey([]byte(key)).String() }
		return table{owner: owner, shares: shares, add: func(m member) { c.Add(named(m.id)) }}
	}
}
