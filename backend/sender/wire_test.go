package sender_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/backend/sender"
	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/pushlink"
	"github.com/selvedge/selvedge/internal/testkit"
)

// meter is a member that has everybody online and counts what comes on the wire.
type meter struct {
	pushv1.UnimplementedPushServiceHandler
	many, users     atomic.Int32 // calls of PushMany, and users in them
	streams, pushes atomic.Int32
	batches         atomic.Int32
	cut             atomic.Bool   // the next batch ends its stream
	gate            chan struct{} // where it is not nil, answers wait until it is closed

	mu   sync.Mutex
	last map[string]uint64 // sequence, by user
	back int               // sequences that went back
}

func (m *meter) ordered(user string, sequence uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last == nil {
		m.last = make(map[string]uint64)
	}
	if sequence <= m.last[user] {
		m.back++
	}
	m.last[user] = sequence
}

func (m *meter) PushMany(_ context.Context, r *connect.Request[pushv1.PushManyRequest]) (*connect.Response[pushv1.PushManyResponse], error) {
	m.many.Add(1)
	m.users.Add(int32(len(r.Msg.Users)))
	response := &pushv1.PushManyResponse{}
	for _, user := range r.Msg.Users {
		m.ordered(user, r.Msg.Sequence)
		response.Results = append(response.Results, &pushv1.PushResult{User: user, Outcome: pushv1.Outcome_DELIVERED, Sessions: 1})
	}
	return connect.NewResponse(response), nil
}

func (m *meter) Pipeline(ctx context.Context, stream *connect.BidiStream[pushv1.PushCalls, pushv1.PushAnswers]) error {
	m.streams.Add(1)
	return pushlink.Serve(ctx, stream, func(ctx context.Context, calls []*pushv1.PushCall, answer func(*pushv1.PushAnswer)) error {
		m.batches.Add(1)
		if m.cut.CompareAndSwap(true, false) {
			return errors.New("cut by the test")
		}
		m.pushes.Add(int32(len(calls)))
		for _, c := range calls {
			m.ordered(c.Push.User, c.Push.Sequence)
			a := &pushv1.PushAnswer{Call: c.Call, Outcome: pushv1.Outcome_DELIVERED, Sessions: 1}
			if m.gate == nil {
				answer(a)
				continue
			}
			go func() {
				select {
				case <-m.gate:
				case <-ctx.Done():
				}
				answer(a)
			}()
		}
		return nil
	})
}

func meters(t *testing.T, n int) (*sender.Sender, []*meter) {
	registry := discovery.NewMemory()
	var list []*meter
	for i := range n {
		m := &meter{}
		put(registry, fmt.Sprint("b", i), serveRPC(t, m))
		list = append(list, m)
	}
	return newSender(t, sender.Config{Membership: sender.Membership{Memory: registry}}), list
}

func names(n, bytes int) []string {
	users := make([]string, n)
	for i := range users {
		users[i] = fmt.Sprintf("%0*d", bytes, i)
	}
	return users
}

// A message to 10,000 users is one message on the wire to each member; ids that take more than 1 MiB are split, and nobody is left out.
func TestPushManyOnTheWire(t *testing.T) {
	s, members := meters(t, 4)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for name, c := range map[string]struct{ users, idBytes, least, most int }{"short ids": {10_000, 8, 4, 4}, "long ids": {18_000, 256, 6, 8}} {
		t.Run(name, func(t *testing.T) {
			before := make([]int32, len(members))
			for i, m := range members {
				before[i] = m.many.Load()
				m.users.Store(0)
			}
			users := names(c.users, c.idBytes)
			results, err := s.PushMany(ctx, users, sender.Text("hi"))
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range results {
				if r.User != users[i] || r.Sessions != 1 || r.Err != nil {
					t.Fatalf("result %d: %+v; want %s's", i, r, users[i])
				}
			}
			calls, reached := 0, 0
			for i, m := range members {
				calls += int(m.many.Load() - before[i])
				reached += int(m.users.Load())
			}
			if calls < c.least || calls > c.most || reached != len(users) {
				t.Errorf("%d calls for %d users; want %d to %d calls, for each user once", calls, reached, c.least, c.most)
			}
		})
	}
}

// Lone pushes share one stream to each member, and those that gather while it is busy share messages.
func TestPushesShareStreams(t *testing.T) {
	const pushes = 4000
	s, members := meters(t, 2)
	var wg sync.WaitGroup
	for _, user := range names(pushes/4, 8) {
		wg.Go(func() {
			for range 4 { // of one user, one behind the other
				if r, err := s.Push(context.Background(), user, sender.Text("hi")); err != nil || r.Sessions != 1 {
					t.Errorf("%+v, %v", r, err)
				}
			}
		})
	}
	wg.Wait()
	if _, err := s.PushMany(context.Background(), names(pushes/4, 8), sender.Text("hi")); err != nil {
		t.Error(err)
	}
	streams, batches, came, back := 0, 0, 0, 0
	for _, m := range members {
		streams += int(m.streams.Load())
		batches += int(m.batches.Load())
		came += int(m.pushes.Load())
		back += m.back
	}
	t.Logf("%d pushes in %d messages", came, batches)
	if streams != 2 || came != pushes || batches > pushes/2 || back != 0 {
		t.Errorf("%d pushes in %d messages on %d streams, %d out of order; want %d in far fewer, on 2", came, batches, streams, back, pushes)
	}
}

// Pushes whose stream breaks are tried again, on another one.
func TestBrokenStream(t *testing.T) {
	s, members := meters(t, 1)
	for range 3 {
		members[0].cut.Store(true)
		if r, err := s.Push(context.Background(), "alice", sender.Text("hi")); err != nil || r.Sessions != 1 {
			t.Errorf("%+v, %v", r, err)
		}
	}
	if n := members[0].streams.Load(); n != 4 {
		t.Errorf("%d streams; want one more for each that was cut", n)
	}
}

// No more pushes are under way on a stream than it has room for; the others wait at the sender, and go out when there is.
func TestStreamIsBounded(t *testing.T) {
	s, members := meters(t, 1)
	m := members[0]
	m.gate = make(chan struct{})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	users := names(pushlink.MaxCalls+500, 8)
	for _, user := range users {
		wg.Go(func() {
			if _, err := s.Push(ctx, user, sender.Text("hi")); err != nil {
				t.Error(err)
			}
		})
	}
	testkit.Eventually(t, 5*time.Second, func() bool { return m.pushes.Load() == pushlink.MaxCalls }, "the stream to be full")
	late, done := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer done()
	if _, err := s.Push(late, "bob", sender.Text("hi")); connect.CodeOf(err) != connect.CodeDeadlineExceeded {
		t.Errorf("a push that found no room: %v", err)
	}
	if n := m.pushes.Load(); n != pushlink.MaxCalls {
		t.Errorf("%d pushes are under way", n)
	}
	close(m.gate)
	wg.Wait()
	if n := int(m.pushes.Load()); n != len(users) {
		t.Errorf("%d pushes came; want %d", n, len(users))
	}
}

// A push that is large goes by itself, one that cannot be encoded fails alone.
func TestOddPushes(t *testing.T) {
	s, members := meters(t, 1)
	if _, err := s.Push(context.Background(), "alice", sender.Message{Data: []byte{0xff}}); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("text that is no UTF-8: %v", err)
	}
	if _, err := s.Push(context.Background(), "alice", sender.Message{Data: make([]byte, 1<<20), Binary: true}); connect.CodeOf(err) != connect.CodeUnimplemented {
		t.Errorf("a large push: %v; want it to be a call of its own, which this member does not take", err)
	}
	if _, err := s.Push(context.Background(), "alice", sender.Text("hi")); err != nil || members[0].streams.Load() != 1 {
		t.Errorf("%v on %d streams", err, members[0].streams.Load())
	}
}
