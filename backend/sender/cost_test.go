package sender

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/discovery"
)

// settle is a try that a member answers at once.
func settle(context.Context, pushv1.PushServiceClient) (int, error) { return 1, nil }

// bookkeeping is all that a push to one user costs but for the RPC itself.
func bookkeeping(ctx context.Context, s *Sender, user string) error {
	ctx, end, err := s.begin(ctx, 0)
	if err != nil {
		return err
	}
	defer end()
	if err := s.lines.await(ctx, user); err != nil {
		return err
	}
	defer s.lines.leave(user)
	_, err = call(ctx, s, user, settle)
	return err
}

func crowd(tb testing.TB, members int) *Sender {
	tb.Helper()
	registry := discovery.NewMemory()
	for i := range members {
		addr := fmt.Sprintf("10.0.0.%d:9100", i)
		registry.Put("default", discovery.Member{ID: fmt.Sprintf("b%d", i), Addr: addr, RPCAddr: addr, Weight: 1})
	}
	s, err := New(Config{Membership: Membership{Memory: registry}})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

// In calm a push costs a few small allocations: its two contexts, mostly.
func TestCostInCalm(t *testing.T) {
	s, ctx := crowd(t, 5), context.Background()
	if err := bookkeeping(ctx, s, "alice"); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(1000, func() { _ = bookkeeping(ctx, s, "alice") }); n > 20 {
		t.Errorf("%v allocations, want at most 20", n)
	}
}

func BenchmarkBookkeeping(b *testing.B) {
	for _, members := range []int{5, 100} {
		b.Run(fmt.Sprintf("members=%d", members), func(b *testing.B) {
			s, ctx := crowd(b, members), context.Background()
			b.ReportAllocs()
			for b.Loop() {
				if err := bookkeeping(ctx, s, "alice"); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("members=%d/parallel", members), func(b *testing.B) {
			s, ctx := crowd(b, members), context.Background()
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				user := fmt.Sprint(time.Now().UnixNano())
				for pb.Next() {
					if err := bookkeeping(ctx, s, user); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}
