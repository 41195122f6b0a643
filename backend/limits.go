package backend

import (
	"math"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Limits bound what clients may take of this process. What is above is refused before the service hears of it; sessions that are open stay
// as they are.
type Limits struct {
	// Sessions is how many may be open; above, an upgrade gets 503 with Retry-After, and edges try the user's next member. Default:
	// what the process's limit of descriptors leaves room for.
	Sessions int
	// PerUser is how many one user may have at this member; above, an upgrade gets 429 with Retry-After. Default: any number.
	PerUser int
	// MessagesPerSecond is how many messages and pings one session may send over time; what ten seconds allow may come at once. Above, it
	// is closed with 1008. Default: any number.
	MessagesPerSecond float64
}

// reservedDescriptors is how many are kept for what is no session: upgrades under way, members, senders and operators. An eighth where
// the limit is small.
const reservedDescriptors = 1024

// sessionsPossible is how many sessions the limit of descriptors, the soft one, leaves room for.
func sessionsPossible() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || uint64(limit.Cur) > math.MaxInt32 { //nolint:unconvert // signed on FreeBSD
		return math.MaxInt32
	}
	return int(limit.Cur) - min(int(limit.Cur)/8, reservedDescriptors)
}

// fullRetry is when a client that was refused for a limit should come again: soon enough for one whose old session is just ending.
const fullRetry = 5 * time.Second

// admit lets a session in, for which b.door.leave is due then. Sessions that are still closing count: they hold a descriptor. Upgrades
// that meet at the limit may all be refused; one too many is never let in.
func (b *Backend) admit() *Refusal {
	if !b.door.enter() {
		return unavailable("stopped", "this member is not running")
	}
	if b.door.count() > b.cfg.Limits.Sessions {
		b.door.leave()
		refusal := unavailable("full", "this member is full")
		refusal.RetryAfter = fullRetry
		return refusal
	}
	return nil
}

// hasPlace tells, of a session that is registered, whether its user may have it: those before it count, so that of several that open
// together the first stay.
func (b *Backend) hasPlace(s *Session) bool {
	limit := b.cfg.Limits.PerUser
	return limit == 0 || slices.Index(b.table.of(s.user), s) < limit // -1: it was closed meanwhile
}

func tooManyOfUser() *Refusal {
	return &Refusal{Status: http.StatusTooManyRequests, Text: "this user has too many sessions", RetryAfter: fullRetry}
}

// rateBurst is how much may come at once: what the rate allows in this time, and at least one message.
const rateBurst = 10 * time.Second

// bucket is a token bucket of 8 bytes, kept as the time at which it will be full (GCRA, ITU-T I.371). The zero bucket is full.
type bucket int64 // on the clock that take is told, in nanoseconds

// take takes one token at now, of those that come at rate a second; false: there is none.
func (b *bucket) take(now time.Duration, rate float64) bool {
	each := time.Duration(float64(time.Second) / rate)
	full := max(time.Duration(*b), now) + each
	if full-now > max(rateBurst, each) {
		return false
	}
	*b = bucket(full)
	return true
}
