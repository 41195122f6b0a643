package edge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/admin"
	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/testkit"
)

// statuses are members that answer as a test says.
type statuses struct {
	mu     sync.Mutex
	answer map[string]func(*pushv1.StatusRequest) (*pushv1.StatusResponse, error)
	asked  map[string]int
}

func (s *statuses) ask(_ context.Context, service string, r *pushv1.StatusRequest) (*pushv1.StatusResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if service != DefaultService {
		return nil, fmt.Errorf("service %q", service)
	}
	s.asked[r.Member]++
	if answer := s.answer[r.Member]; answer != nil {
		return answer(r)
	}
	return &pushv1.StatusResponse{Member: r.Member}, nil
}

func (s *statuses) set(member string, answer func(*pushv1.StatusRequest) (*pushv1.StatusResponse, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer[member] = answer
}

func (s *statuses) count(member string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[member]
}

func newStatuses() *statuses {
	return &statuses{answer: make(map[string]func(*pushv1.StatusRequest) (*pushv1.StatusResponse, error)), asked: make(map[string]int)}
}

func fails(err error) func(*pushv1.StatusRequest) (*pushv1.StatusResponse, error) {
	return func(*pushv1.StatusRequest) (*pushv1.StatusResponse, error) { return nil, err }
}

// registryOf has members b0, b1, ... that take sessions at addrs, and can be asked.
func registryOf(addrs ...string) *discovery.Memory {
	m := discovery.NewMemory()
	for i, addr := range addrs {
		m.Put(DefaultService, discovery.Member{ID: fmt.Sprint("b", i), Addr: addr, RPCAddr: fmt.Sprintf("127.0.0.1:%d", i+1), Weight: 1})
	}
	return m
}

func (r *running) picture() *admin.Picture {
	r.t.Helper()
	p, known := pictures{r.Edge}.Picture(DefaultService)
	if !known {
		r.t.Fatal("the edge has no picture of its own service")
	}
	return p
}

// What this edge has with each member is counted, whatever members tell.
func TestPictureCountsOwn(t *testing.T) {
	dead := deadAddr(t)
	e := start(t, Config{Membership: Membership{Memory: registryOf(listenBackend(t, echo("b0")), dead)}})
	for range 3 {
		e.send(upgradeTo("/?user=" + e.ownedBy("b0"))).line()
	}
	e.send(upgradeTo("/?user=" + e.ownedBy("b1"))).line() // b1 does not answer: it goes to b0
	testkit.Eventually(t, patience, func() bool { return e.picture().Totals.Upgrades == 4 }, "all to be counted, which is after they are told")
	p := e.picture()
	if got := p.Figures["b0"]; got.Own != 4 || got.Failures != 0 || got.Told {
		t.Errorf("b0: %+v", got)
	}
	if got := p.Figures["b1"]; got.Own != 0 || got.Failures == 0 || got.LastFailure.Error == "" || !got.Avoided {
		t.Errorf("b1: %+v", got)
	}
	if p.Totals.Sessions != 4 || p.Totals.DialFailures == 0 || p.Totals.Upgrades != 4 {
		t.Errorf("totals %+v", p.Totals)
	}
	e.hangUp()
	testkit.Eventually(t, patience, func() bool { return e.picture().Figures["b0"].Own == 0 && e.picture().Totals.Closures == 4 }, "the sessions to be gone")
}

// A member that leaves keeps its figures while it has sessions, and is forgotten with the next change after that.
func TestPictureForgets(t *testing.T) {
	registry := registryOf(listenBackend(t, echo("b0")), listenBackend(t, echo("b1")))
	e := start(t, Config{Membership: Membership{Memory: registry}})
	c := e.send(upgradeTo("/?user=" + e.ownedBy("b0")))
	c.head()
	registry.Delete(DefaultService, "b0")
	e.await(func(s *discovery.Snapshot) bool { return s.Ring.Len() == 1 })
	if got := e.picture().Figures["b0"].Own; got != 1 {
		t.Errorf("%d sessions at the member that has left", got)
	}
	e.hangUp()
	testkit.Eventually(t, patience, func() bool { return e.picture().Figures["b0"].Own == 0 }, "the session to end")
	registry.Put(DefaultService, discovery.Member{ID: "b7", Addr: deadAddr(t), Weight: 1})
	testkit.Eventually(t, patience, func() bool { _, known := e.picture().Figures["b0"]; return !known }, "the member to be forgotten")
}

// Members are asked while a page is open, each about once a second, and not otherwise.
func TestMembersAreAskedWhileSomebodyLooks(t *testing.T) {
	members := newStatuses()
	e := start(t, Config{Membership: Membership{Memory: registryOf(deadAddr(t), deadAddr(t))}, Status: members.ask})
	digest := e.snapshot().Ring.Digest()
	members.set("b0", func(*pushv1.StatusRequest) (*pushv1.StatusResponse, error) {
		return &pushv1.StatusResponse{Sessions: 7, Misplaced: 2, PushesPerSecond: 1.5, Moves: 9, QueueBytes: 3, UpMs: 60_000, RingDigest: digest}, nil
	})
	members.set("b1", fails(connect.NewError(connect.CodeUnavailable, errors.New("away"))))
	e.picture()
	if members.count("b0") != 0 {
		t.Error("a member is asked though nobody looks")
	}
	ctx, cancel := context.WithCancel(context.Background())
	pictures{e.Edge}.Follow(ctx, DefaultService)
	pictures{e.Edge}.Follow(ctx, DefaultService) // a second page costs no second question
	testkit.Eventually(t, patience, func() bool { return members.count("b0") >= 3 }, "b0 to be asked again and again")
	p := e.picture()
	if f := p.Figures["b0"]; !f.Told || f.Sessions != 7 || f.Misplaced != 2 || f.PushesPerSecond != 1.5 || f.Moves != 9 || f.QueueBytes != 3 ||
		f.Up < time.Minute || !f.DigestSince.IsZero() || !f.Silent.IsZero() {
		t.Errorf("b0: %+v", f)
	}
	if f := p.Figures["b1"]; f.Told || f.Silent.IsZero() {
		t.Errorf("b1: %+v", f)
	}
	members.set("b0", func(*pushv1.StatusRequest) (*pushv1.StatusResponse, error) {
		return &pushv1.StatusResponse{RingDigest: "another"}, nil
	})
	members.set("b1", fails(connect.NewError(connect.CodeUnauthenticated, errors.New("who?"))))
	testkit.Eventually(t, patience, func() bool { return !e.picture().Figures["b0"].DigestSince.IsZero() && e.picture().Refused != "" },
		"another ring, and a token that is refused, to show")
	cancel()
	last, since := members.count("b0"), time.Now()
	testkit.Eventually(t, patience, func() bool {
		if n := members.count("b0"); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 2*askEach
	}, "questions to end with the pages")
}

// Who ended a session, and why, is the member's to tell; where it cannot, the edge says what it saw.
func TestClosuresAreToldOnce(t *testing.T) {
	members := newStatuses()
	e := start(t, Config{Membership: Membership{Memory: registryOf(listenBackend(t, echo("b0")), listenBackend(t, echo("b1")))}, Status: members.ask})
	var number uint64 = 41
	var after []uint64
	members.set("b0", func(r *pushv1.StatusRequest) (*pushv1.StatusResponse, error) {
		after = append(after, r.ClosuresAfter)
		if r.ClosuresAfter >= number {
			return &pushv1.StatusResponse{}, nil
		}
		return &pushv1.StatusResponse{Closures: []*pushv1.Closure{{Number: number, AgoMs: 5000, User: "alice", Reason: "kick"}}}, nil
	})
	members.set("b1", fails(connect.NewError(connect.CodeUnavailable, errors.New("dead"))))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	pictures{e.Edge}.Follow(ctx, DefaultService)
	for _, id := range []string{"b0", "b1"} {
		c := e.send(upgradeTo("/?user=" + e.ownedBy(id)))
		c.head()
		c.line()
	}
	testkit.Eventually(t, patience, func() bool { return members.count("b1") > 1 && members.count("b0") > 1 }, "both to be asked")
	e.hangUp()
	var told []admin.Entry[admin.Closure]
	testkit.Eventually(t, patience, func() bool {
		told = e.picture().Closures.After(0, 99)
		return len(told) >= 2
	}, "both ends to be told")
	asked := members.count("b0")
	testkit.Eventually(t, patience, func() bool { return members.count("b0") > asked+2 }, "some more rounds")
	if told = e.picture().Closures.After(0, 99); len(told) != 2 {
		t.Fatalf("told %+v; want one end by each", told)
	}
	slices.SortFunc(told, func(a, b admin.Entry[admin.Closure]) int { return int(a.What.Member[1]) - int(b.What.Member[1]) })
	if c := told[0]; c.What.User != "alice" || c.What.By != "backend" || c.What.Reason != "kick" || time.Since(c.At) < 4*time.Second {
		t.Errorf("b0's: %+v", c)
	}
	if c := told[1]; c.What.By != "edge" || c.What.Member != "b1" || c.What.Reason != "client_closed" && c.What.Reason != "client_reset" {
		t.Errorf("b1's: %+v", c)
	}
	if members.mu.Lock(); len(after) < 2 || after[0] != 0 || after[len(after)-1] != number {
		t.Errorf("b0 was asked for closures after %v", after)
	}
	members.mu.Unlock()
}

func TestPageOfAnEdge(t *testing.T) {
	e := start(t, Config{Membership: members(deadAddr(t)), Admin: Admin{Token: "s3cret"}})
	if status, text := e.admin(http.MethodGet, "/", ""); status != 200 || len(text) < 1000 {
		t.Errorf("the page: %d, %d bytes", status, len(text))
	}
	for token, want := range map[string]int{"": 401, "wrong": 401, "s3cret": 200} {
		if status, text := e.admin(http.MethodGet, "/page/user?user=alice", token); status != want {
			t.Errorf("with token %q: %d %s", token, status, text)
		}
	}
}
