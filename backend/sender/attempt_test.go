package sender

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/discovery"
)

// asked is one try as a member saw it.
type asked struct {
	member string
	at     time.Duration // since the test began
	left   time.Duration // for this try
}

// script is a service whose members answer as the test says, in the time of a synctest bubble and without a network.
type script struct {
	registry *discovery.Memory
	sender   *Sender
	began    time.Time
	answer   func(ctx context.Context, a asked) error // nil: the call is settled

	mu    sync.Mutex
	tries []asked
}

func play(t *testing.T, members int, answer func(ctx context.Context, a asked) error) *script {
	t.Helper()
	p := &script{registry: discovery.NewMemory(), began: time.Now(), answer: answer}
	for i := range members {
		p.registry.Put("default", p.member(i))
	}
	s, err := New(Config{Membership: Membership{Memory: p.registry}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	p.sender = s
	synctest.Wait()
	return p
}

func (p *script) member(i int) discovery.Member {
	addr := fmt.Sprintf("10.0.0.%d:9100", i)
	return discovery.Member{ID: fmt.Sprintf("b%d", i), Incarnation: 1, Addr: addr, RPCAddr: addr, Weight: 1}
}

// order lists the user's home and its successors.
func (p *script) order(user string) []string {
	return slices.Collect(p.sender.view.Snapshot().Ring.Successors(user))
}

// call makes one call with that timeout and returns its tries.
func (p *script) call(user string, timeout time.Duration) ([]asked, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var mine []asked
	_, err := call(ctx, p.sender, user, func(ctx context.Context, client pushv1.PushServiceClient) (struct{}, error) {
		deadline, _ := ctx.Deadline()
		a := asked{at: time.Since(p.began), left: time.Until(deadline)}
		p.sender.mu.Lock()
		for _, m := range p.sender.members {
			if m.client == client {
				a.member = m.name
			}
		}
		p.sender.mu.Unlock()
		mine = append(mine, a)
		p.mu.Lock()
		p.tries = append(p.tries, a)
		p.mu.Unlock()
		return struct{}{}, p.answer(ctx, a)
	})
	return mine, err
}

func says(code connect.Code, reason pushv1.Reason, sessions uint32) error {
	return pushv1.NewError(code, &pushv1.ErrorDetail{Reason: reason, Sessions: sessions, Member: "b7"}, errors.New("as the test says"))
}

// hangs is a member that gives no sign of life.
func hangs(ctx context.Context) error {
	<-ctx.Done()
	return connect.NewError(connect.CodeDeadlineExceeded, ctx.Err())
}

// What is not settled is tried again until the deadline, by backoff; the error tells what is known.
func TestTriesUntilDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := uint32(0)
		p := play(t, 3, func(context.Context, asked) error {
			n++
			return says(connect.CodeAborted, pushv1.Reason_UNSETTLED, 3-min(n, 3)) // 2, 1, 0, 0 ...
		})
		tries, err := p.call("alice", 5*time.Second)
		if took := time.Since(p.began); took != 5*time.Second {
			t.Errorf("it took %v", took)
		}
		detail := pushv1.DetailOf(err)
		if connect.CodeOf(err) != connect.CodeAborted || detail.Reason != pushv1.Reason_UNSETTLED || detail.Sessions != 2 || detail.Member != "b7" {
			t.Errorf("%v, %v; want the last reason, and the most that was reached", err, detail)
		}
		if want := fmt.Sprintf("tries: %d, sessions reached: at least 2", len(tries)); !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q in it", err, want)
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v; want it to wrap the deadline's", err)
		}
		if len(tries) < 8 {
			t.Errorf("%d tries in 5 s", len(tries))
		}
		var order []string
		for i, a := range tries {
			order = append(order, a.member)
			if left := 5*time.Second - a.at; a.left != min(left, max(left/tryShare, tryLeast)) {
				t.Errorf("try %d had %v of %v", i, a.left, left)
			}
			if i == 0 {
				continue
			}
			if pause, most := a.at-tries[i-1].at, min(backoffFirst<<(i-1), backoffMost); pause >= most {
				t.Errorf("before try %d it waited %v, at most %v was due", i, pause, most)
			}
		}
		want := p.order("alice")
		if got := order[:6]; !slices.Equal(got, slices.Concat(want, want)) {
			t.Errorf("asked %v; want %v, and again", got, want)
		}
	})
}

// A member that is away costs no wait: the next is asked at once. One that fails, too, does.
func TestFirstWalkOnIsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := play(t, 3, nil)
		order := p.order("alice")
		p.answer = func(_ context.Context, a asked) error {
			if a.member == order[2] {
				return nil
			}
			return connect.NewError(connect.CodeUnavailable, errors.New("connection refused"))
		}
		tries, err := p.call("alice", time.Second)
		if err != nil || len(tries) != 3 {
			t.Fatalf("%v, %v", tries, err)
		}
		if tries[1].at != tries[0].at || tries[2].at == tries[1].at || tries[2].at > tries[1].at+backoffFirst {
			t.Errorf("%v; want the second at once, the third a little later", tries)
		}
	})
}

// A member that hangs costs one call its share of the time; later ones ask it last, and one a second finds out whether it is back.
func TestHungMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := play(t, 3, nil)
		order := p.order("alice")
		hung := true
		p.answer = func(ctx context.Context, a asked) error {
			if hung && a.member == order[0] {
				return hangs(ctx)
			}
			return nil
		}
		first := func(what string, want ...string) {
			t.Helper()
			tries, err := p.call("alice", 3*time.Second)
			var got []string
			for _, a := range tries {
				got = append(got, a.member)
			}
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%s: asked %v, %v; want %v", what, got, err, want)
			}
		}
		first("at first", order[0], order[1])
		if took := time.Since(p.began); took != time.Second {
			t.Errorf("the first took %v of its 3 s, want a third", took)
		}
		first("while it is away", order[1])
		time.Sleep(awayFor)
		done := make(chan bool)
		go func() { first("one finds out", order[0], order[1]); close(done) }()
		synctest.Wait()
		first("others go on meanwhile", order[1])
		<-done
		hung = false
		time.Sleep(awayFor)
		first("it is back", order[0])
		first("and stays", order[0])
	})
}

// With every member away, the home is asked all the same.
func TestAllAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := play(t, 1, func(context.Context, asked) error {
			return connect.NewError(connect.CodeUnavailable, errors.New("refused"))
		})
		if tries, err := p.call("alice", 2*time.Second); connect.CodeOf(err) != connect.CodeUnavailable || len(tries) < 5 {
			t.Errorf("%d tries, %v", len(tries), err)
		}
		p.answer = func(context.Context, asked) error { return nil }
		if tries, err := p.call("alice", time.Second); err != nil || len(tries) != 1 {
			t.Errorf("%d tries, %v", len(tries), err)
		}
	})
}

func TestWhatIsRepeated(t *testing.T) {
	for _, test := range []struct {
		code   connect.Code
		reason pushv1.Reason
		again  bool
		away   bool // the member is asked last for a while
	}{
		{connect.CodeUnavailable, 0, true, true},
		{connect.CodeUnavailable, pushv1.Reason_NOT_A_MEMBER, true, true},
		{connect.CodeUnavailable, pushv1.Reason_HOME_AWAY, true, false},
		{connect.CodeUnavailable, pushv1.Reason_NO_MEMBERS, true, false},
		{connect.CodeAborted, pushv1.Reason_UNSETTLED, true, false},
		{connect.CodeDeadlineExceeded, 0, true, true},
		{connect.CodeCanceled, 0, true, true},
		{connect.CodeUnknown, 0, true, true}, // of the connection: none that a member said
		{connect.CodeResourceExhausted, pushv1.Reason_OVERLOADED, true, false},
		{connect.CodeResourceExhausted, 0, false, false}, // the request is too large
		{connect.CodeInvalidArgument, 0, false, false},
		{connect.CodeAlreadyExists, pushv1.Reason_MESSAGE_REUSED, false, false},
		{connect.CodeUnauthenticated, 0, false, false},
		{connect.CodePermissionDenied, 0, false, false},
		{connect.CodeUnimplemented, 0, false, false},
		{connect.CodeInternal, 0, false, false},
	} {
		t.Run(fmt.Sprint(test.code, " ", test.reason), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := play(t, 1, func(context.Context, asked) error { return says(test.code, test.reason, 0) })
				tries, err := p.call("alice", time.Second)
				if connect.CodeOf(err) != test.code || (len(tries) > 1) != test.again {
					t.Errorf("%d tries, %v", len(tries), err)
				}
				for _, m := range p.sender.members {
					if (m.away.Load() != nil) != test.away {
						t.Errorf("away: %v", !test.away)
					}
				}
			})
		})
	}
}

// When everybody fails, the retries stay within the budget, whatever the load; a lone call is repeated to its deadline.
func TestRetriesStayWithinBudget(t *testing.T) {
	for _, load := range []int{1, 10, 1000} { // calls per second
		t.Run(fmt.Sprint(load), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := play(t, 3, func(context.Context, asked) error { return says(connect.CodeUnavailable, pushv1.Reason_HOME_AWAY, 0) })
				const seconds = 6
				var held, lone int
				var wg sync.WaitGroup
				for range load * seconds {
					wg.Go(func() {
						tries, err := p.call("alice", 2*time.Second)
						p.mu.Lock()
						defer p.mu.Unlock()
						if strings.Contains(err.Error(), "held back by the retry budget") {
							held++
						}
						if len(tries) >= 5 {
							lone++
						}
					})
					time.Sleep(time.Second / time.Duration(load))
				}
				wg.Wait()
				calls := load * seconds
				retries, bound := len(p.tries)-calls, budgetMost+calls*2/10+(seconds+2)*budgetPerSecond
				if retries > bound {
					t.Errorf("%d retries of %d calls in %d s, want at most %d", retries, calls, seconds, bound)
				}
				if load == 1 && (lone < calls*9/10 || held > 0) {
					t.Errorf("of %d lone calls %d were repeated to their deadline, %d were held back", calls, lone, held)
				}
				if load == 1000 && (held < calls/2 || retries < bound*9/10) {
					t.Errorf("%d of %d calls held back, %d retries of %d possible", held, calls, retries, bound)
				}
			})
		})
	}
}

func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wait := "2"
		p := play(t, 1, func(context.Context, asked) error {
			err := connect.NewError(connect.CodeUnavailable, errors.New("later"))
			err.Meta().Set("Retry-After", wait)
			return err
		})
		tries, err := p.call("alice", 5*time.Second)
		if len(tries) != 3 || tries[1].at < 2*time.Second || tries[2].at < 4*time.Second {
			t.Errorf("%v; want tries 2 s apart", tries)
		}
		if took := time.Since(p.began); took >= 5*time.Second || !strings.Contains(err.Error(), "told to wait for 2s") {
			t.Errorf("%v after %v; want it to end where the next wait would go beyond the deadline", err, took)
		}
		for _, wait = range []string{"-1", "x", "Wed, 21 Oct 2015 07:28:00 GMT", "99999999999999999999"} {
			if tries, _ := p.call("alice", time.Second); len(tries) < 3 {
				t.Errorf("Retry-After %q: %d tries within a second", wait, len(tries))
			}
		}
	})
}

// A call under way follows the ring: who has become the home is asked next, not who comes after the last asked.
func TestMembersChangeMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := play(t, 4, nil)
		var order []string
		user := ""
		for i := 0; len(order) == 0 || order[0] != "b3"; i++ {
			user = fmt.Sprint("user", i)
			order = p.order(user)
		}
		p.registry.Delete("default", "b3")
		synctest.Wait()
		p.answer = func(_ context.Context, a asked) error {
			if a.member == order[2] {
				p.registry.Put("default", p.member(3))
				synctest.Wait()
			}
			return says(connect.CodeAborted, pushv1.Reason_UNSETTLED, 0)
		}
		var got []string
		tries, _ := p.call(user, time.Second)
		for _, a := range tries {
			got = append(got, a.member)
		}
		if want := []string{order[1], order[2], order[0], order[1]}; len(got) < 4 || !slices.Equal(got[:4], want) {
			t.Errorf("asked %v; want %v first", got, want)
		}
	})
}

// Without a member a call waits for one.
func TestFirstMemberComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := play(t, 0, func(context.Context, asked) error { return nil })
		time.AfterFunc(3*time.Second, func() { p.registry.Put("default", p.member(0)) })
		if tries, err := p.call("alice", 5*time.Second); err != nil || len(tries) != 1 {
			t.Errorf("%v, %v", tries, err)
		}
		if took := time.Since(p.began); took < 3*time.Second || took > 3*time.Second+backoffMost {
			t.Errorf("it took %v", took)
		}
	})
}

// What a member said counts for more than that time ran out in the try after it.
func TestLastWordIsAMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		said := false
		p := play(t, 1, func(ctx context.Context, _ asked) error {
			if said {
				return hangs(ctx)
			}
			said = true
			return says(connect.CodeAborted, pushv1.Reason_UNSETTLED, 1)
		})
		tries, err := p.call("alice", tryLeast)
		if connect.CodeOf(err) != connect.CodeAborted || len(tries) != 2 {
			t.Errorf("%d tries, %v; want what was said at the first", len(tries), err)
		}
	})
}

// A caller that gives up is told so, and nobody is taken for away by it.
func TestCallerCancels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := play(t, 1, nil)
		ctx, cancel := context.WithCancel(context.Background())
		ctx, stop := context.WithTimeout(ctx, 5*time.Second)
		defer stop()
		time.AfterFunc(time.Second, cancel)
		_, err := call(ctx, p.sender, "alice", func(ctx context.Context, _ pushv1.PushServiceClient) (struct{}, error) {
			<-ctx.Done()
			return struct{}{}, connect.NewError(connect.CodeCanceled, ctx.Err())
		})
		if !errors.Is(err, context.Canceled) || time.Since(p.began) != time.Second {
			t.Errorf("%v after %v", err, time.Since(p.began))
		}
		for _, m := range p.sender.members {
			if m.away.Load() != nil {
				t.Error("the member is taken for away")
			}
		}
	})
}
