package backend_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws/wsutil"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/internal/testkit"
)

// Handlers that block, and ones that end their goroutine, hold up no session but their own, however many they are.
func TestBlockedHandlersHoldUpNobodyElse(t *testing.T) {
	var blocked atomic.Int32
	let := make(chan struct{})
	b := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.OnMessage = func(s *backend.Session, m backend.Message) {
			switch string(m.Data) {
			case "block":
				blocked.Add(1)
				<-let
			case "goexit":
				runtime.Goexit()
			}
			_ = s.Send(m)
		}
	}).members[0]
	send := func(c *client, text string) {
		t.Helper()
		if err := wsutil.WriteClientText(c, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	const some = 100
	var stuck, gone []*client
	for i := range some {
		c := b.dial(t, fmt.Sprint("stuck-", i), "/")
		send(c, "block")
		send(c, "behind it")
		if i%10 == 0 {
			c := b.dial(t, fmt.Sprint("gone-", i), "/")
			send(c, "goexit")
			gone = append(gone, c)
		}
		stuck = append(stuck, c)
	}
	testkit.Eventually(t, 10*time.Second, func() bool { return blocked.Load() == some }, "all handlers to block")
	free := b.dial(t, "free", "/")
	for i := range 200 {
		text := fmt.Sprint("message ", i)
		send(free, text)
		free.want(text)
	}
	for _, c := range gone {
		c.wantClose(1011)
	}
	close(let)
	for _, c := range stuck {
		c.want("block")
		c.want("behind it")
	}
}

// Messages of one session are handled one after the other and in order, whoever of the crew does it, while all sessions have some.
func TestOrderUnderLoad(t *testing.T) {
	const sessions, messages = 50, 100
	b := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.OnOpen = func(s *backend.Session, _ *http.Request) error { s.Data = new(atomic.Bool); return nil }
		cfg.OnMessage = func(s *backend.Session, m backend.Message) {
			inside := s.Data.(*atomic.Bool)
			if !inside.CompareAndSwap(false, true) {
				t.Error("two handlers of one session at once")
			}
			if strings.HasSuffix(string(m.Data), "7") {
				runtime.Gosched()
			}
			inside.Store(false)
			_ = s.Send(m)
		}
	}).members[0]
	done := make(chan error, sessions)
	for i := range sessions {
		c := b.dial(t, fmt.Sprint("user-", i), "/")
		go func() {
			for n := range messages {
				if err := wsutil.WriteClientText(c, fmt.Append(nil, n)); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
		go func() {
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
			for n := range messages {
				got, err := wsutil.ReadServerText(c)
				if err == nil && string(got) != fmt.Sprint(n) {
					err = fmt.Errorf("got %q, want %d", got, n)
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for range 2 * sessions {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
		case <-ctx.Done():
			t.Fatal("not all came back")
		}
	}
}
