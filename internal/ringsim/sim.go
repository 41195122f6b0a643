package ringsim

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/selvedge/selvedge/hashring"
)

// Config says what to simulate.
type Config struct {
	Members int     // at the start, 1 or more
	Users   int     // 1 or more; each has a random id of 16 bytes
	Kill    int     // members that go at once, drawn at random; fewer than Members
	Add     int     // members that come at once, after that
	Weights Weights // of the members at the start, then of those that are added
	Seed    uint64  // decides the names of members, the ids of users, and who is killed
}

// Sim is a simulation that is ready to run.
type Sim struct {
	cfg     Config
	members []hashring.Member // all there ever are; their places are their numbers
	numbers map[string]int32  // by ID
	phases  []phase
}

// A phase is a time in which members stay the same.
type phase struct {
	name string
	ring *hashring.Ring
	in   []bool // which members are there, by number
}

// New checks cfg and builds the rings, which takes about 0.1 ms per unit of weight. Errors say which field to change.
func New(cfg Config) (*Sim, error) {
	switch {
	case cfg.Members < 1:
		return nil, fmt.Errorf("%d members: want 1 or more", cfg.Members)
	case cfg.Users < 1:
		return nil, fmt.Errorf("%d users: want 1 or more", cfg.Users)
	case cfg.Kill < 0 || cfg.Kill >= cfg.Members:
		return nil, fmt.Errorf("%d to kill: want 0 to %d, one fewer than there are members", cfg.Kill, cfg.Members-1)
	case cfg.Add < 0:
		return nil, fmt.Errorf("%d to add: want 0 or more", cfg.Add)
	case cfg.Members > hashring.MaxTotalWeight || cfg.Add > hashring.MaxTotalWeight:
		return nil, fmt.Errorf("a ring has at most %d members", hashring.MaxTotalWeight)
	case len(cfg.Weights.deal) > cfg.Members:
		return nil, fmt.Errorf("weights %s are for %d members, and there are %d", &cfg.Weights, len(cfg.Weights.deal), cfg.Members)
	}
	s := &Sim{cfg: cfg, numbers: make(map[string]int32)}
	for i := range cfg.Members + cfg.Add {
		m := hashring.Member{ID: fmt.Sprintf("s%d-m%d", cfg.Seed, i+1), Weight: cfg.Weights.of(i)}
		s.members = append(s.members, m)
		s.numbers[m.ID] = int32(i)
	}
	in := make([]bool, len(s.members))
	for i := range cfg.Members {
		in[i] = true
	}
	if err := s.enter("start", in); err != nil {
		return nil, err
	}
	if cfg.Kill > 0 {
		rng := rand.New(rand.NewPCG(cfg.Seed, 0))
		for _, i := range rng.Perm(cfg.Members)[:cfg.Kill] {
			in[i] = false
		}
		if err := s.enter("kill", in); err != nil {
			return nil, err
		}
	}
	if cfg.Add > 0 {
		for i := cfg.Members; i < len(in); i++ {
			in[i] = true
		}
		if err := s.enter("add", in); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// enter appends the phase of these members.
func (s *Sim) enter(name string, in []bool) error {
	p := phase{name: name, in: slices.Clone(in)}
	var members []hashring.Member
	for i, m := range s.members {
		if in[i] {
			members = append(members, m)
		}
	}
	var err error
	p.ring, err = hashring.New(members)
	if err != nil {
		return err
	}
	s.phases = append(s.phases, p)
	return nil
}

// Users is how many users Run goes through.
func (s *Sim) Users() int { return s.cfg.Users }

// batch is how many users are drawn from one seed, so that whoever draws them, the users are the same.
const batch = 1 << 15

// Run goes through all users on as many processors as there are, and returns what became of them. It calls progress, which
// may be nil, with the number of users it has gone through: several times a second, from several goroutines but never at
// the same time. The only error is that of ctx.
func (s *Sim) Run(ctx context.Context, progress func(users int)) (*Result, error) {
	var (
		batches = (s.cfg.Users + batch - 1) / batch
		next    atomic.Int64
		wg      sync.WaitGroup
		mu      sync.Mutex // guards all below
		total   = s.newTally()
		done    int
	)
	for range min(batches, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			own := s.newTally()
			for b := int(next.Add(1) - 1); b < batches && ctx.Err() == nil; b = int(next.Add(1) - 1) {
				users := min(batch, s.cfg.Users-b*batch)
				s.count(own, uint64(b), users)
				mu.Lock()
				if done += users; progress != nil {
					progress(done)
				}
				mu.Unlock()
			}
			mu.Lock()
			defer mu.Unlock()
			total.add(own)
		})
	}
	wg.Wait()
	if done < s.cfg.Users {
		return nil, fmt.Errorf("the simulation was stopped after %d of %d users: %w", done, s.cfg.Users, ctx.Err())
	}
	return s.result(total), nil
}

// A tally counts users.
type tally struct {
	users   [][]int // by phase and member's number
	moved   []int   // by phase: whose owner is not that of the phase before
	between []int   // by phase: of those, between members that were there before and are there now
}

func (s *Sim) newTally() *tally {
	t := &tally{moved: make([]int, len(s.phases)), between: make([]int, len(s.phases))}
	for range s.phases {
		t.users = append(t.users, make([]int, len(s.members)))
	}
	return t
}

func (t *tally) add(o *tally) {
	for p := range t.users {
		for i, n := range o.users[p] {
			t.users[p][i] += n
		}
		t.moved[p] += o.moved[p]
		t.between[p] += o.between[p]
	}
}

// count draws the users of a batch and counts each in all phases.
func (s *Sim) count(t *tally, batch uint64, users int) {
	rng := rand.New(rand.NewPCG(s.cfg.Seed, batch+1))
	var random [8]byte
	var id [16]byte
	for range users {
		binary.BigEndian.PutUint64(random[:], rng.Uint64())
		hex.Encode(id[:], random[:])
		h := s.phases[0].ring.Hash(string(id[:]))
		var was string
		var number int32
		for p := range s.phases {
			owner := s.phases[p].ring.OwnerOfHash(h)
			if owner != was {
				before := number
				number = s.numbers[owner]
				if p > 0 {
					t.moved[p]++
					if s.phases[p].in[before] && s.phases[p-1].in[number] {
						t.between[p]++
					}
				}
				was = owner
			}
			t.users[p][number]++
		}
	}
}
