package discovery

import (
	"context"
)

// Source tells the members of services. Its four implementations are [Consul], [Static], [File] and [Memory].
type Source interface {
	// Watch calls update with the members of service: once as soon as they are known, then at every change, never
	// concurrently, until ctx ends; then it returns ctx's error. There is one member per id; the slice is update's to
	// keep and to sort. What goes wrong on the way is retried inside (the last good members stay in force); an error
	// other than ctx's means that watching cannot work at all, and says what to change.
	Watch(ctx context.Context, service string, update func([]Member)) error
}

// Announcer makes a member known to others. [Consul] and [Memory] are announcers; in a static list or a file a member stands
// already, or does not.
type Announcer interface {
	// Announce registers the newest Member received from self under service, keeps the registration alive and re-makes
	// it where the registry forgot it, until ctx ends; then it deregisters (bounded to a few seconds) and returns ctx's
	// error. Failures are retried inside and logged; an error other than ctx's means that this member cannot be
	// announced as it is, and says what to change. The ID must stay the same. Closing self changes nothing.
	// While the registry hangs it may be some seconds before the next Member is received: give self room for one, and
	// replace what it holds.
	Announce(ctx context.Context, service string, self <-chan Member) error
}

// Reader is a source that can be asked instead of followed. All four are readers.
type Reader interface {
	// Read returns every registered member of service, healthy or not and in whatever state, one per id (the highest
	// incarnation), sorted by id, as the registry has it right now: Consul by a consistent read and never from a cache, a
	// file as it is on disk. Nothing is held, kept or damped. An error means that nothing is known, never that there is nobody.
	Read(ctx context.Context, service string) ([]Member, error)
}
