package hashring

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// Limits of weights.
const (
	// MaxWeight is the largest weight of one member.
	MaxWeight = 1000
	// MaxTotalWeight is the largest sum of all weights. A ring that heavy takes 3.6 GiB.
	MaxTotalWeight = 1 << ownerBits
)

// What New and With refuse. Each arrives wrapped, with the member it is about; test with errors.Is.
var (
	// ErrEmptyID is returned when a member has no ID: give it the name that all processes know it by.
	ErrEmptyID = errors.New("member without an ID")
	// ErrDuplicateID is returned when two members have one ID: decide which of them counts.
	ErrDuplicateID = errors.New("duplicate member ID")
	// ErrWeight is returned when a weight is below 0 or above MaxWeight: scale all weights down together.
	ErrWeight = errors.New("weight out of range")
	// ErrTotalWeight is returned when the weights add up to more than MaxTotalWeight: scale them down together.
	ErrTotalWeight = errors.New("total weight out of range")
	// ErrEmptySecret is returned when WithSecret is given no bytes, so that an empty secret file does not switch the
	// key off in silence: leave WithSecret out to build a ring without one.
	ErrEmptySecret = errors.New("empty secret")
)

// Member is one place where keys can live.
type Member struct {
	// ID names the member: any bytes but none, compared byte by byte, and the same in every process.
	ID string
	// Weight says how much of the hash space the member gets, relative to the others: 0 to MaxWeight. With 0 it is
	// listed and owns nothing. A unit of weight costs 57 KiB of memory, so weights are best small.
	Weight int
}

func byID(a, b Member) int { return cmp.Compare(a.ID, b.ID) }

// search returns where the ID is, or would be, among members sorted by ID.
func search(members []Member, id string) (int, bool) {
	return slices.BinarySearchFunc(members, Member{ID: id}, byID)
}

// check holds members sorted by ID against the limits, and returns their total weight.
func check(members []Member) (total int, err error) {
	for i, m := range members {
		switch {
		case m.ID == "":
			return 0, fmt.Errorf("hashring: %w", ErrEmptyID)
		case i > 0 && m.ID == members[i-1].ID:
			return 0, fmt.Errorf("hashring: %w: %q", ErrDuplicateID, m.ID)
		case m.Weight < 0 || m.Weight > MaxWeight:
			return 0, fmt.Errorf("hashring: %w: %d for %q, must be 0 to %d", ErrWeight, m.Weight, m.ID, MaxWeight)
		}
		total += m.Weight
	}
	if total > MaxTotalWeight {
		return 0, fmt.Errorf("hashring: %w: %d, must be at most %d", ErrTotalWeight, total, MaxTotalWeight)
	}
	return total, nil
}
