package discovery

import (
	"cmp"
	"fmt"
	"slices"
	"sort"

	"github.com/selvedge/selvedge/hashring"
)

// Snapshot is what is known of one service at one moment. It is immutable: whoever routes reads one from [View.Snapshot] and
// keeps it for the whole decision, so that owner, address and digest belong together.
type Snapshot struct {
	Service string
	Members []Member       // sorted by ID, one per ID; those outside the ring too
	Ring    *hashring.Ring // of the members for which InRing holds; empty where there are none

	options []hashring.Option // that Ring is made with
}

// Member returns the member of that id, in the ring or not. It costs one binary search.
func (s *Snapshot) Member(id string) (Member, bool) {
	i := sort.Search(len(s.Members), func(i int) bool { return s.Members[i].ID >= id })
	if i < len(s.Members) && s.Members[i].ID == id {
		return s.Members[i], true
	}
	return Member{}, false
}

// successor returns the snapshot that follows s when members are reported; it takes members over. It is s itself where they are
// the same, and it has s's ring where no member of the ring, and no weight there, changed.
func (s *Snapshot) successor(members []Member) (*Snapshot, error) {
	sortMembers(members)
	for i := 1; i < len(members); i++ {
		if members[i].ID == members[i-1].ID {
			return nil, fmt.Errorf("member %q is reported twice", members[i].ID)
		}
	}
	if slices.Equal(s.Members, members) {
		return s, nil
	}
	next := &Snapshot{Service: s.Service, Members: members, Ring: s.Ring, options: s.options}
	if in := ringMembers(members); !slices.Equal(ringMembers(s.Members), in) {
		ring, err := hashring.New(in, s.options...)
		if err != nil {
			return nil, err
		}
		next.Ring = ring
	}
	return next, nil
}

// ringMembers is what of members stands on the ring, in their order.
func ringMembers(members []Member) []hashring.Member {
	in := make([]hashring.Member, 0, len(members))
	for _, m := range members {
		if m.InRing() {
			in = append(in, hashring.Member{ID: m.ID, Weight: m.Weight})
		}
	}
	return in
}

func sortMembers(members []Member) {
	slices.SortFunc(members, compareIDs)
}

func compareIDs(a, b Member) int { return cmp.Compare(a.ID, b.ID) }
