package backend_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/internal/testkit"
)

// pinging is a member that pings often, and tells how its sessions end.
func pinging(t *testing.T, change func(*backend.Config)) (*member, <-chan backend.CloseReason) {
	ended := make(chan backend.CloseReason, 16)
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.PingEvery, cfg.PongTimeout = time.Second, 800*time.Millisecond
		cfg.OnClose = func(_ *backend.Session, reason backend.CloseReason) { ended <- reason }
		if change != nil {
			change(cfg)
		}
	})
	return c.members[0], ended
}

// Whatever a client sends behind a ping is a sign of life; without one it is closed, and gone for pushes.
func TestPing(t *testing.T) {
	t.Parallel()
	m, ended := pinging(t, nil)
	for name, answer := range map[string][]byte{
		"pong":    raw(true, 0, ws.OpPong, ""),
		"message": text("hi"),
		"a byte":  text("hi")[:1],
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := m.open(t, "alice")
			s.want("ping ")
			s.write(answer)
			s.want("ping ") // not closed by the one before; nor answered
			s.want("close 1011 ping timeout", "end")
			s.Close()
			wantReason(t, ended, backend.PingTimeout)
		})
	}
	t.Run("silent from the start", func(t *testing.T) {
		t.Parallel()
		s := m.open(t, "silent")
		testkit.Eventually(t, 5*time.Second, func() bool { return len(m.SessionsOf("silent")) == 0 }, "the session out of the table")
		s.want("ping ", "close 1011 ping timeout", "end")
		s.Close()
		wantReason(t, ended, backend.PingTimeout)
	})
}

// Where handlers are behind, the socket is not read: what the client may have answered is not known, and no reason to close.
func TestPingWaitsForSlowHandlers(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	m, ended := pinging(t, func(cfg *backend.Config) {
		cfg.MessageBytes = 10
		cfg.OnMessage = func(*backend.Session, backend.Message) { <-gate }
	})
	s := m.open(t, "alice")
	s.write(text("0123456789")) // one is handled, and one fills the inbox
	s.write(text("0123456789"))
	for range 2 { // an unanswered one before the second
		s.want("ping ")
	}
	if len(ended) > 0 {
		t.Errorf("closed by %v although nothing was read", <-ended)
	}
	close(gate)
	s.want("close 1011", "end") // it is read now, and has been silent
	s.Close()
	wantReason(t, ended, backend.PingTimeout)
}

// A client that is still taking what was sent before cannot have seen a ping.
func TestPingWaitsForSlowReaders(t *testing.T) {
	t.Parallel()
	m, ended := pinging(t, func(cfg *backend.Config) {
		cfg.OnOpen = func(s *backend.Session, _ *http.Request) error { return s.Send(clog) }
	})
	s := m.socket(t)
	if err := s.Conn.(interface{ SetReadBuffer(int) error }).SetReadBuffer(64 << 10); err != nil { // so that most waits at the member
		t.Fatal(err)
	}
	s.write([]byte(handshake("alice")))
	s.answer()
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	for deadline := time.Now().Add(2500 * time.Millisecond); time.Now().Before(deadline); <-pace.C { // two pings or more
		if _, err := s.in.Discard(32 << 10); err != nil {
			t.Fatal(err)
		}
	}
	if m.Sessions() != 1 {
		t.Fatal("closed while it was reading")
	}
	// One that takes nothing any more is gone.
	testkit.Eventually(t, 10*time.Second, func() bool { return m.Sessions() == 0 }, "the session out of the table")
	reset(t, s)
	wantReason(t, ended, backend.PingTimeout)
}

func TestNoPing(t *testing.T) {
	t.Parallel()
	m, ended := pinging(t, func(cfg *backend.Config) { cfg.PingEvery = -1 })
	s := m.open(t, "alice")
	_ = s.SetReadDeadline(time.Now().Add(1500 * time.Millisecond))
	if b, err := s.in.ReadByte(); err == nil {
		t.Errorf("got %#x", b)
	}
	if len(ended) > 0 {
		t.Errorf("closed by %v", <-ended)
	}
}
