package admin

import (
	"context"
	"time"

	"github.com/selvedge/selvedge/internal/discovery"
)

// Source is what a process knows of itself and the others, for its page.
type Source interface {
	// Services are those that there is a picture of, sorted.
	Services() []string
	// Picture is how a service is now; false: it is not known here. It is asked for once a second by each page that is open.
	Picture(service string) (*Picture, bool)
	// Follow has pictures of the service show what costs something to find out, until ctx ends. It does not block.
	Follow(ctx context.Context, service string)
}

// Picture is a service at one moment, as one process sees it. Nothing in it is changed any more.
type Picture struct {
	Process  Process
	Snapshot *discovery.Snapshot
	Stale    bool               // the registry cannot be read: Snapshot is older than it should be
	Figures  map[string]Figures // by member id; those that left while they had sessions are there too
	Totals   Totals
	Refused  string // why the members do not tell how they are; "": they do

	Changes  *Changes          // of the ring
	Closures *Journal[Closure] // of sessions
}

// Process is whose page it is.
type Process struct {
	Role     string `json:"role"` // edge or backend
	Name     string `json:"name"`
	NotReady string `json:"not_ready,omitempty"`
	Limit    int    `json:"limit,omitempty"` // most sessions that it takes
}

// Totals are the process's own, since its start but for Sessions.
type Totals struct {
	Sessions     int    `json:"sessions"`
	Upgrades     uint64 `json:"upgrades"` // answered with 101
	Refusals     uint64 `json:"refusals"` // by the edge itself, whatever for
	DialFailures uint64 `json:"dial_failures"`
	Closures     uint64 `json:"closures"`
}

// Figures are what a process knows of one member.
type Figures struct {
	Own int // sessions through this process

	// What the member tells.
	Told            bool // it does: what follows means something
	Sessions        int  // from whichever edge
	Misplaced       int  // of them, those that are to move
	PushesPerSecond float64
	Moves           uint64
	QueueBytes      uint64 // that wait for slow clients
	State           string // as it sees itself
	Digest          string // of the ring by which it decides
	Up              time.Duration
	DigestSince     time.Time // since when it has been another ring than ours; zero: it is ours

	Silent time.Time // since when it has not answered; zero: it does, or is not asked

	// What happened when this process connected to it.
	Avoided     bool // it is tried last, for it did not answer
	Failures    uint64
	LastFailure Failure
}

// Failure is a connection that did not come about.
type Failure struct {
	At    time.Time
	Error string
}

// Closure is a session that has ended.
type Closure struct {
	Member string `json:"member"`
	Reason string `json:"reason"`
	By     string `json:"by"` // whose word this is: backend or edge
	User   string `json:"user,omitempty"`
	Device string `json:"device,omitempty"`
	Lasted int64  `json:"lasted,omitempty"` // milliseconds; 0: not known
}
