package discovery

import (
	"context"
	"errors"
	"testing"
)

func TestMemoryWatch(t *testing.T) {
	var r Memory // the zero value
	a, b := Member{ID: "a", Addr: "h:1", Weight: 1}, Member{ID: "b", Addr: "h:2", Weight: 1}
	w := watch(t, &r, "chat")
	w.await(t, nil, "an empty first report")
	r.Put("chat", b)
	r.Put("game", Member{ID: "other", Addr: "h:9", Weight: 1})
	r.Put("chat", a)
	w.await(t, []Member{a, b}, "two members, sorted, and none of another service")
	r.Delete("chat", "a")
	r.Delete("chat", "never there")
	w.await(t, []Member{b}, "one left")
	watch(t, &r, "chat").await(t, []Member{b}, "a later watcher")
}

func TestMemoryAnnounce(t *testing.T) {
	r := NewMemory()
	w := watch(t, r, "chat")
	old := Member{ID: "a", Incarnation: 1, Addr: "h:1", Weight: 1}
	draining, next := old, old
	draining.State = Draining
	next.Incarnation, next.Addr = 2, "h:2"

	stopOld, sendOld := announce(t, r, "chat")
	sendOld <- old
	w.await(t, []Member{old}, "announced")
	sendOld <- draining
	w.await(t, []Member{draining}, "draining")
	stopNext, sendNext := announce(t, r, "chat")
	sendNext <- next
	w.await(t, []Member{next}, "a higher incarnation takes the id")
	sendOld <- old
	stopOld()
	if got := r.members("chat"); len(got) != 1 || got[0] != next {
		t.Fatalf("the old incarnation touched the new one: %s", show(got))
	}
	stopNext()
	w.await(t, nil, "gone at the end")
}

func TestAnnounceRefuses(t *testing.T) {
	good := Member{ID: "a", Incarnation: 1, Addr: "h:1", RPCAddr: "h:2", Weight: 1}
	tests := map[string]func(*Member){
		"another id":      func(m *Member) { m.ID = "b" },
		"no id":           func(m *Member) { m.ID = "" },
		"a slash":         func(m *Member) { m.ID = "a/b" },
		"no port":         func(m *Member) { m.Addr = "h" },
		"no RPC port":     func(m *Member) { m.RPCAddr = "h" },
		"weight too high": func(m *Member) { m.Weight = MaxWeight + 1 },
		"negative weight": func(m *Member) { m.Weight = -1 },
	}
	for name, spoil := range tests {
		bad := good
		spoil(&bad)
		self := make(chan Member, 2)
		self <- good
		self <- bad
		if err := NewMemory().Announce(t.Context(), "chat", self); err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("%s: Announce ended with %v", name, err)
		}
	}
}

// announce runs Announce beside the test; stop ends it and waits for it.
func announce(t *testing.T, a Announcer, service string) (stop func(), self chan<- Member) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	members := make(chan Member)
	done := make(chan error, 1)
	go func() { done <- a.Announce(ctx, service, members) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Announce ended with %v", err)
		}
	}
	t.Cleanup(stop)
	return stop, members
}
