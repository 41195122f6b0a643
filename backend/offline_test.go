package backend_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/backend/sender"
	"github.com/selvedge/selvedge/internal/testkit"
)

// kept is a service's store of what could not be delivered.
type kept struct {
	mu    sync.Mutex
	list  []string
	calls int
	fail  func(call int) error
}

func (k *kept) store(_ context.Context, user, id string, m backend.Message) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls++
	if k.fail != nil {
		if err := k.fail(k.calls); err != nil {
			return err
		}
	}
	k.list = append(k.list, user+" "+id+" "+string(m.Data))
	return nil
}

func (k *kept) wants(t *testing.T, want ...string) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	slices.Sort(k.list)
	if !slices.Equal(k.list, want) {
		t.Errorf("kept %q; want %q", k.list, want)
	}
	k.list = nil
}

// Whatever the way in, a message that found nobody is kept before its push is answered, once for its id; others are not.
func TestOnOffline(t *testing.T) {
	var k kept
	c := newCluster(t, 2, func(cfg *backend.Config) { cfg.OnOffline = k.store })
	c.home("online").dial(t, "online", "/")
	ctx := context.Background()
	s, err := sender.New(sender.Config{Membership: sender.Membership{Memory: c.registry}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	hi := func(id string) sender.Message { return sender.Message{Data: []byte("hi"), ID: id} }

	for range 2 { // repeats are the same message
		if r, err := s.Push(ctx, "bob", hi("m1")); err != nil || r.Sessions != 0 {
			t.Errorf("%+v, %v", r, err)
		}
		if r, err := s.Push(ctx, "online", hi("m1")); err != nil || r.Sessions != 1 {
			t.Errorf("%+v, %v", r, err)
		}
	}
	k.wants(t, "bob m1 hi")
	copied := hi("m2")
	copied.ExceptSession = "some-session"
	if _, err := s.Push(ctx, "bob", copied); err != nil {
		t.Error(err)
	}
	if _, _, err := s.Broadcast(ctx, hi("m3")); err != nil {
		t.Error(err)
	}
	k.wants(t)
	if _, err := s.PushMany(ctx, []string{"bob", "online", "carol"}, hi("m4")); err != nil {
		t.Error(err)
	}
	k.wants(t, "bob m4 hi", "carol m4 hi")
	if _, err := c.elsewhere("bob").Push(ctx, "bob", backend.Text("hi"), backend.WithMessageID("m5")); err != nil {
		t.Error(err)
	}
	k.wants(t, "bob m5 hi")

	stream := pushv1.NewPushServiceClient(h2c(t), "http://"+c.home("bob").RPCAddr().String(), connect.WithGRPC()).PushStream(ctx)
	_ = stream.Send(&pushv1.PushRequest{User: "bob", MessageId: "m6", Payload: &pushv1.PushRequest_Text{Text: "hi"}})
	if r, err := stream.Receive(); err != nil || r.Outcome != pushv1.Outcome_OFFLINE {
		t.Errorf("%v, %v", r, err)
	}
	_ = stream.CloseRequest()
	_ = stream.CloseResponse()
	k.wants(t, "bob m6 hi")
}

// What cannot be kept is not said to be offline: the sender tries again.
func TestOnOfflineFails(t *testing.T) {
	k := kept{fail: func(call int) error {
		switch call {
		case 1:
			return errors.New("the store is away")
		case 2:
			panic("the store is broken")
		}
		return nil
	}}
	c := newCluster(t, 1, func(cfg *backend.Config) { cfg.OnOffline = k.store })
	if n, err := c.members[0].Push(context.Background(), "bob", backend.Text("hi")); n != 0 || !errors.Is(err, backend.ErrUnsettled) {
		t.Errorf("%d, %v; want it to be unsettled", n, err)
	}
	s, err := sender.New(sender.Config{Membership: sender.Membership{Memory: c.registry}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if r, err := s.Push(context.Background(), "bob", sender.Message{Data: []byte("hi"), ID: "m1"}); err != nil || r.Sessions != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	k.wants(t, "bob m1 hi")
}

// Many that are offline are kept at once, but not all.
func TestOnOfflineIsBounded(t *testing.T) {
	const width, pushes = 64, 200
	var mu sync.Mutex
	now, most := 0, 0
	full := make(chan struct{})
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.OnOffline = func(ctx context.Context, _, _ string, _ backend.Message) error {
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			select {
			case <-full:
			case <-ctx.Done():
			}
			mu.Lock()
			now--
			mu.Unlock()
			return nil
		}
	})
	users := make([]string, pushes)
	for i := range users {
		users[i] = fmt.Sprint("user-", i)
	}
	s, err := sender.New(sender.Config{Membership: sender.Membership{Memory: c.registry}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var results []sender.Result
	var pushing sync.WaitGroup
	pushing.Go(func() { results, err = s.PushMany(context.Background(), users, sender.Text("hi")) })
	testkit.Eventually(t, 5*time.Second, func() bool { mu.Lock(); defer mu.Unlock(); return now >= width }, "all places to be taken")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.members[0].Push(ctx, "one-more", backend.Text("hi")); !errors.Is(err, backend.ErrOverloaded) {
		t.Errorf("one more: %v; want it to be told that there is no place", err)
	}
	close(full)
	pushing.Wait()
	for _, r := range results {
		if r.Err != nil || err != nil {
			t.Error(r.Err, err)
		}
	}
	if most != width {
		t.Errorf("%d at once; want %d", most, width)
	}
}
