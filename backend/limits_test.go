package backend_test

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/internal/testkit"
)

// A full member refuses new sessions and says when to come again; those that are open do not notice.
func TestSessionLimit(t *testing.T) {
	var asked atomic.Int32
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.Limits.Sessions = 2
		cfg.OnOpen = func(*backend.Session, *http.Request) error { asked.Add(1); return nil }
		cfg.OnMessage = func(s *backend.Session, m backend.Message) { _ = s.Send(m) }
	})
	m := c.members[0]
	first, second := m.open(t, "alice"), m.open(t, "bob")
	for range 3 {
		s := m.socket(t)
		s.write([]byte(handshake("carol")))
		answer := s.answer()
		if answer.StatusCode != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") != "5" || answer.Header.Get(backend.RefusedHeader) != "full" {
			t.Fatalf("%s, %v; want 503, Retry-After 5, and the member's own word that it is full", answer.Status, answer.Header)
		}
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("OnOpen was asked %d times; want 2", n)
	}
	first.write(text("still here"))
	first.want("text still here")
	second.write(closing(1000, ""))
	second.want("close 1000", "end")
	second.Close()
	testkit.Eventually(t, 5*time.Second, func() bool {
		s := m.socket(t)
		s.write([]byte(handshake("carol")))
		return s.answer().StatusCode == http.StatusSwitchingProtocols
	}, "the place that came free to be given")
}

// However many come at once, a limit holds, and a user's limit is his own.
func TestLimitsHoldInACrowd(t *testing.T) {
	for _, test := range []struct {
		name   string
		limits backend.Limits
		status int // of those above
		least  int // are let in
	}{
		{"of the member", backend.Limits{Sessions: 5}, 503, 0}, // who meet at the limit may all be refused
		{"of a user", backend.Limits{PerUser: 5}, 429, 5},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster(t, 1, func(cfg *backend.Config) { cfg.Limits = test.limits })
			m := c.members[0]
			var open, refused atomic.Int32
			var wg sync.WaitGroup
			sockets := make([]*socket, 40)
			for i := range sockets {
				sockets[i] = m.socket(t)
			}
			for _, s := range sockets {
				wg.Go(func() {
					s.write([]byte(handshake("alice")))
					switch answer := s.answer(); {
					case answer.StatusCode == http.StatusSwitchingProtocols:
						open.Add(1)
					case answer.StatusCode == test.status && answer.Header.Get("Retry-After") == "5":
						refused.Add(1)
					default:
						t.Errorf("%s, %v", answer.Status, answer.Header)
					}
				})
			}
			wg.Wait()
			if n := int(open.Load()); n > 5 || n < test.least || m.Sessions() != n || int(refused.Load()) != len(sockets)-n {
				t.Errorf("%d open, %d known, %d refused; want %d to 5 open and the others refused", n, m.Sessions(), refused.Load(), test.least)
			}
			if test.limits.PerUser > 0 {
				m.open(t, "bob")
			}
		})
	}
}

// A session that sends more than it may is closed; one that sends as much as it may is not.
func TestMessageRate(t *testing.T) {
	var handled atomic.Int32
	ended := make(chan backend.CloseReason, 4)
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.Limits.MessagesPerSecond = 0.5
		cfg.OnMessage = func(*backend.Session, backend.Message) { handled.Add(1) }
		cfg.OnClose = func(_ *backend.Session, reason backend.CloseReason) { ended <- reason }
	})
	m := c.members[0]
	for name, frame := range map[string][]byte{"messages": text("x"), "pings": raw(true, 0, ws.OpPing, "")} {
		t.Run(name, func(t *testing.T) {
			handled.Store(0)
			s := m.open(t, name)
			for range 5 { // what ten seconds allow
				s.write(frame)
			}
			if name == "messages" {
				testkit.Eventually(t, 5*time.Second, func() bool { return handled.Load() == 5 }, "the burst to be handled")
			} else {
				for range 5 {
					s.want("pong ")
				}
			}
			for range 20 {
				_, _ = s.Write(frame)
			}
			s.want("close 1008 too many messages", "end")
			s.Close()
			wantReason(t, ended, backend.RateExceeded)
		})
	}
	calm := m.open(t, "calm")
	for i := range 4 {
		calm.write(text(fmt.Sprint(i)))
	}
	calm.write(closing(1000, "")) // which is no message
	calm.want("close 1000", "end")
	calm.Close()
	wantReason(t, ended, backend.ClosedByClient)
}
