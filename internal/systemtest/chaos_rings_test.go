package systemtest

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/selvedge/selvedge/hashring"
	"github.com/selvedge/selvedge/internal/discovery"
)

// rings remembers each ring that Consul's catalogue made: what moves at the least follows from them.
type rings struct {
	view *discovery.View

	mu  sync.Mutex
	all []*hashring.Ring
}

func watchRings(t *testing.T, consul string) *rings {
	t.Helper()
	source, err := discovery.NewConsul(discovery.ConsulConfig{Addr: consul}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := &rings{view: discovery.NewView("default", source, nil)}
	r.view.Subscribe(func(old, now *discovery.Snapshot) {
		if old.Ring == now.Ring {
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.all = append(r.all, now.Ring)
	})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.view.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rings) now() *discovery.Snapshot { return r.view.Snapshot() }

// mark returns a place in the history, for changes.
func (r *rings) mark() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.all)
}

// changes counts, for each user, the changes of owner since the mark; the mark's own ring is the one before.
func (r *rings) changes(mark int, users []string) map[string]int {
	r.mu.Lock()
	since := slices.Clone(r.all[max(0, mark-1):])
	r.mu.Unlock()
	changed := make(map[string]int)
	for _, user := range users {
		for i := 1; i < len(since); i++ {
			if since[i-1].Owner(user) != since[i].Owner(user) {
				changed[user]++
			}
		}
	}
	return changed
}
