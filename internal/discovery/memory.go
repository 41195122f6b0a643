package discovery

import (
	"context"
	"sync"
)

// Memory is a registry inside one process, for `selvedge dev` and tests. It keeps no time: a member is there from the moment it
// is announced or put until it is deregistered or deleted. The zero Memory is empty and ready; any goroutine may use it.
type Memory struct {
	mu       sync.Mutex
	services map[string]map[string]Member
	watchers map[*memoryWatcher]struct{}
}

// memoryWatcher is woken by a change. One wake-up stands for any number of changes: who is slow skips states in between.
type memoryWatcher struct {
	service string
	wake    chan struct{} // room for one
}

// NewMemory returns an empty registry.
func NewMemory() *Memory { return new(Memory) }

// Put registers m under service, in place of what was registered by that id.
func (r *Memory) Put(service string, m Member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.put(service, m)
}

// Delete removes the member of that id, if there is one.
func (r *Memory) Delete(service, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.delete(service, id)
}

// Watch reports the members of service, sorted by id.
func (r *Memory) Watch(ctx context.Context, service string, update func([]Member)) error {
	w := &memoryWatcher{service: service, wake: make(chan struct{}, 1)}
	w.wake <- struct{}{}
	r.mu.Lock()
	if r.watchers == nil {
		r.watchers = make(map[*memoryWatcher]struct{})
	}
	r.watchers[w] = struct{}{}
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.watchers, w)
		r.mu.Unlock()
	}()
	for {
		select {
		case <-w.wake:
			update(r.members(service))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Announce registers what self says until ctx ends, then deletes it. A member whose id a higher incarnation has taken is neither
// registered over it nor deletes it.
func (r *Memory) Announce(ctx context.Context, service string, self <-chan Member) error {
	var last Member
	for {
		select {
		case m, open := <-self:
			if !open {
				self = nil
				continue
			}
			if err := announceable(last, m); err != nil {
				return err
			}
			last = m
			r.change(service, m, true)
		case <-ctx.Done():
			if last.ID != "" {
				r.change(service, last, false)
			}
			return ctx.Err()
		}
	}
}

// Read returns the members of service, sorted by id.
func (r *Memory) Read(_ context.Context, service string) ([]Member, error) {
	return r.members(service), nil
}

// change registers or deletes m, unless a higher incarnation has its id.
func (r *Memory) change(service string, m Member, register bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.services[service][m.ID].Incarnation > m.Incarnation {
		return
	}
	if register {
		r.put(service, m)
	} else {
		r.delete(service, m.ID)
	}
}

// put is called under mu.
func (r *Memory) put(service string, m Member) {
	if r.services == nil {
		r.services = make(map[string]map[string]Member)
	}
	if r.services[service] == nil {
		r.services[service] = make(map[string]Member)
	}
	r.services[service][m.ID] = m
	r.wake(service)
}

// delete is called under mu.
func (r *Memory) delete(service, id string) {
	delete(r.services[service], id)
	r.wake(service)
}

func (r *Memory) members(service string) []Member {
	r.mu.Lock()
	defer r.mu.Unlock()
	members := make([]Member, 0, len(r.services[service]))
	for _, m := range r.services[service] {
		members = append(members, m)
	}
	sortMembers(members)
	return members
}

// wake is called under mu.
func (r *Memory) wake(service string) {
	for w := range r.watchers {
		if w.service == service {
			select {
			case w.wake <- struct{}{}:
			default:
			}
		}
	}
}
