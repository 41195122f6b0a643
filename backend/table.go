package backend

import (
	"hash/maphash"
	"iter"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/selvedge/selvedge/internal/homing"
)

// table holds the sessions of this process by user, pending ones included: whoever looks a user up between the registration
// and the 101 finds the session, and waits for what becomes of it.
type table struct {
	seed   maphash.Seed
	count  atomic.Int64
	shards [64]shard
}

type shard struct {
	mu    sync.RWMutex
	users map[string][]*Session // never an empty slice; a slice is replaced, not changed, so that readers may keep it
}

func newTable() *table {
	t := &table{seed: maphash.MakeSeed()}
	for i := range t.shards {
		t.shards[i].users = make(map[string][]*Session)
	}
	return t
}

func (t *table) shard(user string) *shard {
	return &t.shards[maphash.String(t.seed, user)%uint64(len(t.shards))]
}

func (t *table) add(s *Session) {
	sh := t.shard(s.user)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.users[s.user] = append(slices.Clip(sh.users[s.user]), s)
	t.count.Add(1)
}

// remove reports whether s was there: a session leaves when its close begins, and the end of its connection may be told later.
func (t *table) remove(s *Session) bool {
	sh := t.shard(s.user)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	old := sh.users[s.user]
	i := slices.Index(old, s)
	if i < 0 {
		return false
	}
	t.count.Add(-1)
	if len(old) == 1 {
		delete(sh.users, s.user)
		return true
	}
	sh.users[s.user] = append(slices.Clone(old[:i]), old[i+1:]...)
	return true
}

// of returns the user's sessions; the slice is shared and must not be changed.
func (t *table) of(user string) []*Session {
	sh := t.shard(user)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return sh.users[user]
}

// all returns every session. It locks one shard at a time, so it is no snapshot: sessions that come or go meanwhile may or may
// not be in it.
func (t *table) all() []*Session {
	list := make([]*Session, 0, t.len())
	for i := range t.shards {
		sh := &t.shards[i]
		sh.mu.RLock()
		for _, sessions := range sh.users {
			list = append(list, sessions...)
		}
		sh.mu.RUnlock()
	}
	return list
}

// users yields each session's user as the ownership protocol knows him.
func (t *table) users() iter.Seq[homing.User] {
	return func(yield func(homing.User) bool) {
		for i := range t.shards {
			if !t.shards[i].yieldUsers(yield) {
				return
			}
		}
	}
}

func (sh *shard) yieldUsers(yield func(homing.User) bool) bool {
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	for _, sessions := range sh.users {
		for _, s := range sessions {
			if !yield(s.hash) {
				return false
			}
		}
	}
	return true
}

func (t *table) len() int { return int(t.count.Load()) }
