package discovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/selvedge/selvedge/internal/testkit"
)

// These tests run against a real Consul server.

func openConsul(t *testing.T, server *testkit.Consul, tag string) *Consul {
	t.Helper()
	c, err := NewConsul(ConsulConfig{Addr: server.Addr, Tag: tag}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ours is a member as one of our backends announces itself.
func ours(id string, port int) Member {
	return Member{
		ID: id, Incarnation: 1, Addr: fmt.Sprintf("127.0.0.1:%d", port), RPCAddr: fmt.Sprintf("127.0.0.1:%d", port+1),
		PublicURL: "wss://" + id + ".example.com", Weight: 2,
	}
}

func TestAnnounceToConsul(t *testing.T) {
	t.Parallel()
	server := testkit.StartConsul(t)
	c := openConsul(t, server, "blue")
	w := watch(t, c, "chat")
	w.await(t, nil, "nobody yet")

	b1, b2 := ours("b1", 9000), ours("b2", 9002)
	b1.State = Joining
	stop1, self1 := announce(t, c, "chat")
	_, self2 := announce(t, c, "chat")
	self1 <- b1
	self2 <- b2
	w.await(t, []Member{b1, b2}, "two members, as they announced themselves")
	b1.State = Serving
	self1 <- b1
	w.await(t, []Member{b1, b2}, "one serves now")

	service, _, err := server.Client().Agent().Service("b1", nil)
	if err != nil || service.Service != "chat" || !slices.Equal(service.Tags, []string{"blue"}) {
		t.Errorf("registered as %+v, %v", service, err)
	}

	began := time.Now()
	stop1()
	w.await(t, []Member{b2}, "one has left")
	if took := time.Since(began); took > recoveryHold/2 {
		t.Errorf("a deregistration in ordinary times was seen after %v", took)
	}
}

// TestAnnounceWeights: while weights change, with 0 on the way, no watcher sees a weight that was never meant.
func TestAnnounceWeights(t *testing.T) {
	t.Parallel()
	c := openConsul(t, testkit.StartConsul(t), "")
	w := watch(t, c, "chat")
	_, self := announce(t, c, "chat")
	m := ours("b1", 9000)
	meant := []int{0, 2, 0, 5, 3, 0}
	for _, weight := range meant {
		m.Weight, m.Health = weight, Passing
		self <- m
		if weight == 0 {
			m.Health = Warning
		}
		w.await(t, []Member{m}, fmt.Sprintf("weight %d", weight))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := []int{}
	for _, report := range w.reports {
		for _, m := range report {
			if len(seen) == 0 || seen[len(seen)-1] != m.Weight {
				seen = append(seen, m.Weight)
			}
		}
	}
	if !slices.Equal(seen, meant) {
		t.Errorf("weights seen: %v, meant: %v", seen, meant)
	}
}

// slowAgent keeps one registration as a Consul agent does, and notes after each write what a watcher would find at that moment.
type slowAgent struct {
	passing, warning int
	status           string // "" before the first registration
	found            []int  // weights
}

func (a *slowAgent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/v1/agent/service/register":
		var body api.AgentServiceRegistration
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		a.passing, a.warning = body.Weights.Passing, body.Weights.Warning
		if a.status == "" {
			a.status = body.Check.Status // that of a check that exists stays
		}
	case a.status == "":
		http.Error(w, "Unknown check ID", http.StatusNotFound)
		return
	default:
		var body struct{ Status string }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		a.status = body.Status
	}
	found := a.passing
	if a.status == api.HealthWarning {
		found = a.warning
	}
	a.found = append(a.found, found)
}

// TestRegisterOrder: between the writes of one registration stands nothing but the old weight or the new one, and after the last the
// status is what it should be.
func TestRegisterOrder(t *testing.T) {
	state := new(slowAgent)
	server := httptest.NewServer(state)
	defer server.Close()
	c, err := NewConsul(ConsulConfig{Addr: server.URL}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.transport.CloseIdleConnections()
	old := -1
	for _, weight := range []int{0, 2, 0, 5, 3, 0, 0, 1} {
		m := ours("b1", 9000)
		m.Weight = weight
		a := announcement{consul: c, service: "chat", log: testLog(t), self: m, stale: true}
		state.found = nil
		if a.step(t.Context()); a.stale {
			t.Fatal("not registered")
		}
		for _, found := range state.found {
			if found != weight && found != old {
				t.Errorf("from %d to %d by %v", old, weight, state.found)
			}
		}
		if state.status != checkStatus(m) || state.found[len(state.found)-1] != weight {
			t.Errorf("from %d to %d: ends with %s, %v", old, weight, state.status, state.found)
		}
		old = weight
	}
}

// TestForeignServices: what others register is found under NODE/SERVICE-ID, with Consul's weight for its state.
func TestForeignServices(t *testing.T) {
	t.Parallel()
	server := testkit.StartConsul(t)
	w := watch(t, openConsul(t, server, ""), "web")
	agent := server.Client().Agent()
	err := agent.ServiceRegister(&api.AgentServiceRegistration{
		ID: "web:1", Name: "web", Port: 80, Weights: &api.AgentWeights{Passing: 10, Warning: 3},
		Check: &api.AgentServiceCheck{CheckID: "c", TTL: "1h", Status: "passing"},
	})
	if err != nil {
		t.Fatal(err)
	}
	m := Member{ID: "testkit/web:1", Addr: "127.0.0.1:80", Weight: 10}
	w.await(t, []Member{m}, "passing")
	for _, step := range []struct {
		status string
		health Health
		weight int
	}{{"warning", Warning, 3}, {"critical", Critical, 10}, {"passing", Passing, 10}} {
		if err := agent.UpdateTTL("c", "", step.status); err != nil {
			t.Fatal(err)
		}
		m.Health, m.Weight, m.Override = step.health, step.weight, NotOverridden
		if step.health == Critical {
			m.Override = Kept // the only one there is
		}
		w.await(t, []Member{m}, step.status)
	}
}

// TestRestartWithTheSameID: the farewell of an old incarnation does not take the new one's registration away.
func TestRestartWithTheSameID(t *testing.T) {
	t.Parallel()
	server := testkit.StartConsul(t)
	c := openConsul(t, server, "")
	w := watch(t, c, "chat")
	old, next := ours("b1", 9000), ours("b1", 9000)
	next.Incarnation = 2
	stopOld, selfOld := announce(t, c, "chat")
	selfOld <- old
	w.await(t, []Member{old}, "the old one")
	stopNext, selfNext := announce(t, c, "chat")
	selfNext <- next
	w.await(t, []Member{next}, "the new one")
	_, before := w.last()
	stopOld()
	if _, _, err := server.Client().Agent().Service("b1", nil); err != nil {
		t.Fatalf("after the old one's farewell: %v", err)
	}
	stopNext()
	w.await(t, nil, "the new one's farewell")
	if _, after := w.last(); after != before+1 {
		t.Errorf("%d reports instead of one", after-before)
	}
}

// TestConsulAway stops Consul for longer than the TTL and starts it again, with its data and without. Meanwhile one member ends
// without a word, and a service that nobody registers again is in the catalogue. The ring loses neither before the hold is over,
// never loses those that live, and afterwards follows the catalogue.
func TestConsulAway(t *testing.T) {
	t.Parallel()
	for _, wipe := range []bool{false, true} {
		t.Run(fmt.Sprintf("wipe=%v", wipe), func(t *testing.T) {
			t.Parallel()
			server := testkit.StartConsul(t)
			c := openConsul(t, server, "")
			view := NewView("chat", c, testLog(t))
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- view.Run(ctx) }()
			defer func() {
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}()

			_, self1 := announce(t, c, "chat")
			_, self2 := announce(t, c, "chat")
			self1 <- ours("b1", 9000)
			self2 <- ours("b2", 9002)
			foreign := &api.AgentServiceRegistration{
				Name: "chat", ID: "old", Port: 1, Check: &api.AgentServiceCheck{TTL: "5s", Status: "passing"},
			}
			if err := server.Client().Agent().ServiceRegister(foreign); err != nil {
				t.Fatal(err)
			}
			ring := func() string { return strings.Join(ids(view.Snapshot().Members), " ") }
			testkit.Eventually(t, soon, func() bool { return ring() == "b1 b2 testkit/old" }, "three members")

			var shrunk []string
			defer view.Subscribe(func(old, new *Snapshot) {
				for _, id := range []string{"b1", "b2"} {
					if m, known := new.Member(id); !known || !m.InRing() {
						shrunk = append(shrunk, show(new.Members))
					}
				}
			})()
			ringBefore := view.Snapshot().Ring

			server.Stop()
			outage := time.NewTimer(HeartbeatTTL + time.Second)
			<-outage.C
			if wipe {
				server.Wipe()
			}
			server.Start()
			back := time.Now()
			testkit.Eventually(t, soon, func() error {
				checks, _, err := server.Client().Health().Service("chat", "", true, nil)
				if err != nil || len(checks) < 2 {
					return fmt.Errorf("%d are registered and passing, %w", len(checks), err)
				}
				return nil
			}, "both members have registered again by themselves")
			t.Logf("registered again %v after Consul was ready", time.Since(back).Round(time.Millisecond))
			if view.Snapshot().Ring != ringBefore {
				t.Errorf("the ring changed while nothing happened to its members: %s", ring())
			}

			testkit.Eventually(t, recoveryHold+soon, func() bool { return ring() == "b1 b2" }, "who did not come back leaves after the hold")
			if held := time.Since(back); held < recoveryHold-3*time.Second {
				t.Errorf("the hold lasted only %v", held)
			}
			_, self3 := announce(t, c, "chat")
			self3 <- ours("b3", 9004)
			testkit.Eventually(t, soon, func() bool { return ring() == "b1 b2 b3" }, "changes are seen again")
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			done <- nil
			if len(shrunk) > 0 {
				t.Errorf("members that lived left the ring: %q", shrunk)
			}
		})
	}
}

func TestAnnounceWhileConsulIsAway(t *testing.T) {
	t.Parallel()
	server := testkit.StartConsul(t)
	server.Stop()
	c := openConsul(t, server, "")
	stop, self := announce(t, c, "chat")
	self <- ours("b1", 9000)
	server.Start()
	testkit.Eventually(t, soon, func() error {
		_, _, err := server.Client().Agent().Service("b1", nil)
		return err
	}, "registered once Consul was there")
	server.Stop()
	began := time.Now()
	stop()
	if took := time.Since(began); took > farewell+time.Second {
		t.Errorf("the farewell took %v", took)
	}
}

// TestStaleAnswers: a watch that any server may answer works like the others.
func TestStaleAnswers(t *testing.T) {
	t.Parallel()
	server := testkit.StartConsul(t)
	c, err := NewConsul(ConsulConfig{Addr: "http://" + server.Addr, Stale: true}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	w := watch(t, c, "chat")
	_, self := announce(t, c, "chat")
	b1 := ours("b1", 9000)
	self <- b1
	w.await(t, []Member{b1}, "announced")
}

func TestRegistrationRefused(t *testing.T) {
	self := make(chan Member, 1)
	self <- Member{ID: "b1", Addr: "nowhere", Weight: 1}
	c, err := NewConsul(ConsulConfig{Addr: "127.0.0.1:1"}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Announce(t.Context(), "chat", self); err == nil || errors.Is(err, context.Canceled) {
		t.Fatalf("Announce ended with %v", err)
	}
}
