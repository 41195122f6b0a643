package edge

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/testkit"
)

// atOnce moves as fast as a mover can.
func atOnce(e *Edge) {
	if m := e.service(DefaultService).mover; m != nil {
		m.pace = movePace{settle: 10 * time.Millisecond, spread: time.Millisecond, share: 1000}
	}
}

func (m *mover) seated() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.seats)
}

// open opens a session of each user and reads where it is.
func (r *running) open(targets ...string) (clients []*client, at []string) {
	r.t.Helper()
	for _, target := range targets {
		c := r.send(upgradeTo(target))
		c.head()
		clients, at = append(clients, c), append(at, c.line())
	}
	return clients, at
}

func usersOf(n int) (targets []string) {
	for i := range n {
		targets = append(targets, fmt.Sprintf("/ws?user=u%d", i))
	}
	return targets
}

// TestMoveClose: those whose owner is another member now are closed, with the end of the stream, and nobody else.
func TestMoveClose(t *testing.T) {
	for name, c := range map[string]struct {
		onMove OnMove
		rpc    string // of the member that the sessions are at
		moves  bool
	}{
		"close":                          {MoveClose, "", true},
		"keep":                           {MoveKeep, "", false},
		"close, at a member of our kind": {MoveClose, "127.0.0.1:1", false},
	} {
		t.Run(name, func(t *testing.T) {
			registry := discovery.NewMemory()
			registry.Put(DefaultService, discovery.Member{ID: "b0", Addr: listenBackend(t, echo("b0")), RPCAddr: c.rpc, Weight: 1})
			e := start(t, Config{Membership: Membership{Memory: registry}, Routes: []Route{{Path: "/ws"}, {Path: "/any", Key: "none"}},
				Services: map[string]ServiceConfig{DefaultService: {OnMove: c.onMove}}}, atOnce)
			e.await(func(snap *discovery.Snapshot) bool { return snap.Ring.Len() == 1 })
			users, _ := e.open(usersOf(40)...)
			nobodys, _ := e.open("/any", "/any")
			if m := e.service(DefaultService).mover; m != nil {
				if n := m.seated(); c.moves && n != len(users) || !c.moves && n != 0 {
					t.Errorf("%d sessions may be moved", n)
				}
			}
			registry.Put(DefaultService, discovery.Member{ID: "b1", Addr: listenBackend(t, echo("b1")), Weight: 1})
			e.await(func(snap *discovery.Snapshot) bool { return snap.Ring.Len() == 2 })
			moved := 0
			for i, client := range users {
				if c.moves && e.snapshot().Ring.Owner(fmt.Sprint("u", i)) != "b0" {
					moved++
					client.ended()
					_ = client.Close()
				}
			}
			if c.moves && (moved == 0 || moved == len(users)) {
				t.Fatalf("%d of %d users moved: the test shows nothing", moved, len(users))
			}
			testkit.Eventually(t, patience, func() error {
				if got := e.metric(`selvedge_edge_session_closes_total{reason="moved",service="default"}`); got != fmt.Sprint(moved) {
					return fmt.Errorf("%s sessions moved, want %d", got, moved)
				}
				return nil
			}, "they are counted")
			if !c.moves && e.service(DefaultService).mover != nil { // where there is one, it has looked at the ring
				if movable, waiting := e.service(DefaultService).mover.misplaced(); len(movable)+waiting != 0 {
					t.Errorf("%d movable, %d waiting", len(movable), waiting)
				}
			}
			for i, client := range users {
				if !c.moves || e.snapshot().Ring.Owner(fmt.Sprint("u", i)) == "b0" {
					nobodys = append(nobodys, client)
				}
			}
			for _, client := range nobodys {
				say(client, "still here\n")
				if got := client.line(); got != "still here" {
					t.Errorf("got %q", got)
				}
				_ = client.Close()
			}
			testkit.Eventually(t, patience, func() bool { return e.Sessions() == 0 }, "all have gone")
			if m := e.service(DefaultService).mover; m != nil {
				if n := m.seated(); n != 0 {
					t.Errorf("%d seats of sessions that are gone", n)
				}
			}
		})
	}
}

// TestMovePace: sessions are closed over the time that the pace gives them.
func TestMovePace(t *testing.T) {
	registry := discovery.NewMemory()
	registry.Put(DefaultService, discovery.Member{ID: "b0", Addr: listenBackend(t, echo("b0")), Weight: 1})
	const settle, spread = 100 * time.Millisecond, 500 * time.Millisecond
	e := start(t, Config{Membership: Membership{Memory: registry}, Services: map[string]ServiceConfig{DefaultService: {OnMove: MoveClose}}},
		func(e *Edge) {
			e.service(DefaultService).mover.pace = movePace{settle: settle, spread: spread, share: 1000}
		})
	e.await(func(snap *discovery.Snapshot) bool { return snap.Ring.Len() == 1 })
	clients, _ := e.open(usersOf(20)...)
	began := time.Now()
	registry.Put(DefaultService, discovery.Member{ID: "b0", Addr: "127.0.0.1:1", State: discovery.Draining})
	registry.Put(DefaultService, discovery.Member{ID: "b1", Addr: listenBackend(t, echo("b1")), Weight: 1})
	for _, c := range clients {
		if _, err := io.ReadAll(c.br); err != nil {
			t.Error(err)
		}
		_ = c.Close()
	}
	// Twenty within the spread: at least nineteen twentieths of it, after the members were still.
	if took := time.Since(began); took < settle+spread*9/10 {
		t.Errorf("all were closed within %v, want %v and %v", took, settle, spread)
	}
}

func TestMoveRate(t *testing.T) {
	for _, c := range []struct {
		moving, sessions int
		want             float64
	}{
		{1, 1, 1},             // at least one
		{100, 10_000, 10},     // the spread
		{10_000, 10_000, 500}, // the share
		{0, 0, 1},
	} {
		if got := defaultPace.rate(c.moving, c.sessions); got != c.want {
			t.Errorf("%d of %d: %v a second, want %v", c.moving, c.sessions, got, c.want)
		}
	}
}

func TestAbsence(t *testing.T) {
	now := time.Unix(1000, 0)
	var a absence
	if now.Before(a.until()) {
		t.Error("nobody was passed over, and it is too soon")
	}
	for i, seconds := range []int{10, 20, 40, 80, 160, 320, 600, 600} {
		want := time.Duration(seconds) * time.Second
		a = a.next(now)
		if got := a.until().Sub(now); got != want {
			t.Fatalf("time %d: left alone for %v, want %v", i+1, got, want)
		}
		if device := a.next(now.Add(want - 1)); device != a {
			t.Fatalf("time %d: another device counts as another time", i+1)
		}
		now = a.until()
	}
	if a = a.next(now.Add(2*awayLimit + 1)); a.times != 1 {
		t.Error("a long rest does not end the series")
	}
}

// TestNoMoveLoop: a session that is elsewhere since its owner does not answer is left alone, and its client is not sent round in circles.
func TestNoMoveLoop(t *testing.T) {
	e := start(t, Config{Membership: members(deadAddr(t), listenBackend(t, echo("b1"))),
		Services: map[string]ServiceConfig{DefaultService: {OnMove: MoveClose}}}, atOnce, func(e *Edge) {
		began := time.Now()
		e.service(DefaultService).outliers.clock = func() time.Time { return began } // who is avoided stays so
	})
	user := e.ownedBy("b0")
	svc := e.service(DefaultService)
	want := func(movable, waiting int, when string) {
		t.Helper()
		if a, b := svc.mover.misplaced(); len(a) != movable || b != waiting {
			t.Errorf("%s: %d movable, %d waiting; want %d, %d", when, len(a), b, movable, waiting)
		}
	}
	_, at := e.open("/ws?user=" + user)
	if at[0] != "b1/"+user {
		t.Fatalf("at %s", at[0])
	}
	want(0, 1, "owner avoided")
	toMove := `selvedge_edge_sessions_to_move{service="default"}`
	testkit.Eventually(t, patience, func() bool { return e.metric(toMove) == "1" }, "the metric says that it is to move")
	owner, _ := e.snapshot().Member("b0")
	svc.outliers.answered(owner, time.Now())
	want(0, 1, "owner passed over lately")
	svc.outliers.failed(owner, time.Now().Add(time.Second), errRefused)
	svc.mover.mu.Lock()
	svc.mover.away.Add(user, absence{time.Now().Add(-2 * awayFirst), 1})
	svc.mover.mu.Unlock()
	want(0, 1, "owner avoided, passed over a while ago")
	svc.outliers.answered(owner, time.Now().Add(2*time.Second))
	testkit.Eventually(t, patience, func() bool { return e.Sessions() == 0 }, "the owner is well: the session moves")
	if got := e.metric(`selvedge_edge_session_closes_total{reason="moved",service="default"}`); got != "1" {
		t.Errorf("%s moved", got)
	}
	testkit.Eventually(t, patience, func() bool { return e.metric(toMove) == "0" }, "nobody is to move")
}

// TestSeatCost bounds what a session costs more where sessions move: nothing at all elsewhere.
func TestSeatCost(t *testing.T) {
	const n, most = 50_000, 200
	e, err := New(Config{Membership: members("h:1"), Services: map[string]ServiceConfig{DefaultService: {OnMove: MoveClose}}})
	if err != nil {
		t.Fatal(err)
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	all := make([]session, n)
	before := heap()
	for i := range all {
		e.service(DefaultService).mover.add(&all[i], fmt.Sprintf("user-%08d", i), candidate{Member: discovery.Member{ID: "b0"}})
	}
	per := (heap() - before) / n
	t.Logf("%d bytes a session", per)
	if per > most {
		t.Errorf("%d bytes a session, want at most %d", per, most)
	}
	runtime.KeepAlive(all)
	runtime.KeepAlive(e)
}

// TestMovePolls: a request without effect that waits at a member which is not the owner any more is asked of the owner. What has an effect, what
// has begun to be answered, and who did not move, stays.
func TestMovePolls(t *testing.T) {
	release := make(chan struct{})
	var waiting atomic.Int64
	old := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			_, _ = io.WriteString(w, "begun\n")
			w.(http.Flusher).Flush()
		}
		_, _ = io.ReadAll(r.Body)
		waiting.Add(1)
		select {
		case <-release:
			_, _ = io.WriteString(w, "b0\n")
		case <-r.Context().Done():
			waiting.Add(-1)
		}
	})
	registry := discovery.NewMemory()
	registry.Put(DefaultService, discovery.Member{ID: "b0", Addr: old, Weight: 1})
	e := start(t, Config{Membership: Membership{Memory: registry}, Services: map[string]ServiceConfig{DefaultService: {OnMove: MoveClose}}}, atOnce)
	e.await(func(snap *discovery.Snapshot) bool { return snap.Ring.Len() == 1 })
	const users = 20
	post := "POST /?user=%s HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx"
	polls, posts, streams := make([]*client, users), make([]*client, users), make([]*client, users)
	for i := range users {
		user := fmt.Sprint("u", i)
		polls[i], posts[i], streams[i] = e.send(get("/?user="+user)), e.send(fmt.Sprintf(post, user)), e.send(get("/stream?user="+user))
	}
	wait := func(n int64, what string) {
		testkit.Eventually(t, patience, func() error {
			if got := waiting.Load(); got != n {
				return fmt.Errorf("%d wait, want %d", got, n)
			}
			return nil
		}, what)
	}
	wait(3*users, "all to wait")

	var asked atomic.Int64
	registry.Put(DefaultService, discovery.Member{ID: "b1", Weight: 1, Addr: serve(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = io.WriteString(w, "b1\n")
	})})
	e.await(func(snap *discovery.Snapshot) bool { return snap.Ring.Len() == 2 })
	moved := make([]bool, users)
	n := int64(0)
	for i := range users {
		if moved[i] = e.snapshot().Ring.Owner(fmt.Sprint("u", i)) == "b1"; moved[i] {
			n++
		}
	}
	if n == 0 || n == users {
		t.Fatalf("%d of %d users moved: the test shows nothing", n, users)
	}
	wait(3*users-n, "those who moved to have left")
	close(release)
	for i := range users {
		want := "b0\n"
		if _, body := posts[i].whole(); body != want {
			t.Errorf("the POST of u%d is answered by %q", i, body)
		}
		if _, body := streams[i].whole(); body != "begun\n"+want {
			t.Errorf("the stream of u%d is %q", i, body)
		}
		if moved[i] {
			want = "b1\n"
		}
		if _, body := polls[i].whole(); body != want {
			t.Errorf("the poll of u%d is answered by %q, want %q", i, body, want)
		}
	}
	if got := asked.Load(); got != n {
		t.Errorf("the new member was asked %d times, want %d", got, n)
	}
	testkit.Eventually(t, patience, func() bool { return e.service(DefaultService).mover.seated() == 0 }, "no seat to be left")
}
