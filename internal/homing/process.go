package homing

import (
	"cmp"
	"hash/fnv"
	"strconv"
	"time"
)

// Process is one run of a member. Incarnations of one member are ordered: a later run has a higher one. Nothing that is promised
// to or by one incarnation binds another.
type Process struct {
	Member      string
	Incarnation uint64 // 0: not known, where a list of members names none
}

// Peer is a process and where it is called.
type Peer struct {
	Process
	Addr string // host:port of its RPC listener
}

// User is a user's id as a hash on the ring. Two ids with one hash are treated as one user, which costs questions, never a lie.
type User uint64

// Instant is a reading of this process's clock.
type Instant time.Duration

func (t Instant) plus(d time.Duration) Instant { return t + Instant(d) }

// since is how long ago earlier was.
func (t Instant) since(earlier Instant) time.Duration { return time.Duration(t - earlier) }

// Until is how long it takes from now to t.
func (t Instant) Until(now Instant) time.Duration { return time.Duration(t - now) }

// never is before every reading.
const never = Instant(-1 << 62)

func byMember(a, b Process) int { return cmp.Compare(a.Member, b.Member) }

// digest identifies who is known and who is held dead, in whatever order they were learned. A member that is there says by its
// incarnation which ones are dead, and need not remember those of its own.
func digest(known map[string]*peer, self Process, dead map[string]burial) uint64 {
	add := func(kind byte, p Process) uint64 {
		h := fnv.New64a()
		_, _ = h.Write([]byte{kind})
		_, _ = h.Write([]byte(p.Member))
		_, _ = h.Write([]byte{0})
		_, _ = h.Write(strconv.AppendUint(nil, p.Incarnation, 16))
		return h.Sum64()
	}
	sum := add('k', self)
	for _, p := range known {
		sum += add('k', p.Process)
	}
	for member, b := range dead {
		if known[member] != nil || member == self.Member {
			continue
		}
		sum += add('d', Process{member, b.incarnation})
	}
	return sum
}
