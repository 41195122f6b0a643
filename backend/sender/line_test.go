package sender

import (
	"context"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
)

// slow is a member that takes pushes when the test lets it, and remembers in what order they came.
type slow struct {
	pushv1.PushServiceClient // none
	open                     chan struct{}

	mu    sync.Mutex
	heard []string // text to user
}

func (f *slow) hear(user, text string) {
	f.mu.Lock()
	f.heard = append(f.heard, text+" to "+user)
	f.mu.Unlock()
}

// answer waits until the user may be answered; those whose name begins with b must wait for the test.
func (f *slow) answer(ctx context.Context, users ...string) error {
	if !slices.ContainsFunc(users, func(u string) bool { return strings.HasPrefix(u, "b") }) {
		return nil
	}
	select {
	case <-f.open:
		return nil
	case <-ctx.Done():
		return connect.NewError(connect.CodeDeadlineExceeded, ctx.Err())
	}
}

func (f *slow) Push(ctx context.Context, r *connect.Request[pushv1.PushRequest]) (*connect.Response[pushv1.PushResponse], error) {
	f.hear(r.Msg.User, r.Msg.GetText())
	return connect.NewResponse(&pushv1.PushResponse{Sessions: 1}), f.answer(ctx, r.Msg.User)
}

func (f *slow) PushMany(ctx context.Context, r *connect.Request[pushv1.PushManyRequest]) (*connect.Response[pushv1.PushManyResponse], error) {
	response := &pushv1.PushManyResponse{}
	for _, user := range r.Msg.Users {
		f.hear(user, r.Msg.GetText())
		response.Results = append(response.Results, &pushv1.PushResult{User: user, Sessions: 1})
	}
	return connect.NewResponse(response), f.answer(ctx, r.Msg.Users...)
}

func (f *slow) order() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.heard)
}

func newSlow(t *testing.T) (*Sender, *slow) {
	t.Helper()
	s, err := New(Config{Via: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	f := &slow{open: make(chan struct{})}
	s.via = &member{name: "slow", client: f, hangUp: func() {}}
	t.Cleanup(func() {
		s.Close()
		if n := len(s.lines.waiting); n != 0 {
			t.Errorf("%d lines are left over", n)
		}
	})
	return s, f
}

// Pushes to one user leave one after the other, as they were begun, whatever else is pushed meanwhile.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := newSlow(t)
		var want []string
		for i := range maxWaiting + 1 {
			text := fmt.Sprint(i)
			want = append(want, text+" to bob")
			go func() {
				var err error
				if i%3 == 0 {
					_, err = s.PushMany(context.Background(), []string{"bob"}, Text(text))
				} else {
					_, err = s.Push(context.Background(), "bob", Text(text))
				}
				if err != nil {
					t.Error(err)
				}
			}()
			synctest.Wait()
			if n := len(f.order()); n != 1 {
				t.Fatalf("%d pushes to one user under way", n)
			}
		}
		if _, err := s.Push(context.Background(), "alice", Text("hi")); err != nil {
			t.Errorf("a push to somebody else: %v", err)
		}
		want = slices.Insert(want, 1, "hi to alice")

		// The line is full: one more is refused at once.
		_, err := s.Push(context.Background(), "bob", Text("too many"))
		if connect.CodeOf(err) != connect.CodeResourceExhausted || pushv1.DetailOf(err).Reason != pushv1.Reason_OVERLOADED {
			t.Errorf("%v; want resource_exhausted", err)
		}
		results, err := s.PushMany(context.Background(), []string{"bob", "alice"}, Text("too many"))
		if err != nil || connect.CodeOf(results[0].Err) != connect.CodeResourceExhausted || results[1].Err != nil {
			t.Errorf("%v, %v; want bob's refused, alice's done", results, err)
		}
		want = slices.Insert(want, 2, "too many to alice")

		close(f.open)
		synctest.Wait()
		if got := f.order(); !slices.Equal(got, want) {
			t.Errorf("the member heard %q, want %q", got, want)
		}
	})
}

// A push whose time ends in the line is not sent, and holds up none behind it.
func TestEndsInLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := newSlow(t)
		long, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		go func() { _, _ = s.Push(long, "bob", Text("first")) }()
		synctest.Wait()
		short, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		defer cancel()
		go func() {
			if _, err := s.Push(short, "bob", Text("never")); connect.CodeOf(err) != connect.CodeDeadlineExceeded {
				t.Errorf("%v; want deadline_exceeded", err)
			}
		}()
		synctest.Wait()
		go func() {
			results, err := s.PushMany(short, []string{"bob", "alice", "bob"}, Text("also"))
			if err != nil || connect.CodeOf(results[0].Err) != connect.CodeDeadlineExceeded ||
				connect.CodeOf(results[2].Err) != connect.CodeDeadlineExceeded || results[1].Err != nil {
				t.Errorf("%v, %v; want alice's done at once, bob's not", results, err)
			}
		}()
		synctest.Wait()
		go func() {
			if _, err := s.Push(long, "bob", Text("last")); err != nil {
				t.Error(err)
			}
		}()
		time.Sleep(4100 * time.Millisecond)
		close(f.open)
		synctest.Wait()
		if got, want := f.order(), []string{"first to bob", "also to alice", "last to bob"}; !slices.Equal(got, want) {
			t.Errorf("the member heard %q, want %q", got, want)
		}
	})
}

// A call to many takes all whose turn has come at once in one call, not one by one.
func TestTurnsComeTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newSlow(t)
		users := make([]string, 500)
		for i := range users {
			users[i] = fmt.Sprint("b", i)
		}
		var count counting
		s.via.client = &count
		for range 3 {
			go func() { _, _ = s.PushMany(context.Background(), users, Text("hi")) }()
		}
		synctest.Wait()
		time.Sleep(10 * time.Second)
		if calls := count.calls.Load(); calls != 3 {
			t.Errorf("%d calls for 3 messages to the same users, want 3", calls)
		}
	})
}

type counting struct {
	pushv1.PushServiceClient
	calls atomic.Int32
}

func (c *counting) PushMany(_ context.Context, r *connect.Request[pushv1.PushManyRequest]) (*connect.Response[pushv1.PushManyResponse], error) {
	c.calls.Add(1)
	time.Sleep(time.Second)
	response := &pushv1.PushManyResponse{}
	for range r.Msg.Users {
		response.Results = append(response.Results, &pushv1.PushResult{})
	}
	return connect.NewResponse(response), nil
}

// Whoever comes, goes or gives up at whatever moment: one push of a user is under way, and nobody is forgotten.
func TestLinesUnderLoad(t *testing.T) {
	l := lines{waiting: make(map[string][]waiter)}
	var underWay [4]atomic.Int32
	enter := func(i int) {
		if n := underWay[i].Add(1); n != 1 {
			t.Errorf("%d pushes to one user under way", n)
		}
		if mathrand.IntN(4) == 0 {
			time.Sleep(time.Duration(mathrand.IntN(100)) * time.Microsecond)
		}
		underWay[i].Add(-1)
	}
	users := []string{"a", "b", "c", "d"}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 300 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(mathrand.IntN(2000))*time.Microsecond)
				if i := mathrand.IntN(len(users)); mathrand.IntN(2) == 0 {
					if l.await(ctx, users[i]) == nil {
						enter(i)
						l.leave(users[i])
					}
				} else {
					p, refused := l.joinAll(slices.Concat(users, users[i:i+1]))
					told := len(refused)
					for p.waiting > 0 {
						next, err := p.next(ctx)
						told += len(next)
						if err != nil {
							break
						}
						for _, j := range next {
							enter(slices.Index(users, p.users[j]))
							p.leave([]int{j})
						}
					}
					if told != len(p.users) {
						t.Errorf("%d of %d places were accounted for", told, len(p.users))
					}
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if len(l.waiting) != 0 {
		t.Errorf("lines left over: %v", l.waiting)
	}
}
