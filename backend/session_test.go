package backend_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/internal/testkit"
)

func TestRefusal(t *testing.T) {
	var closed atomic.Int32
	errs := make(chan error, 1)
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.OnOpen = func(s *backend.Session, _ *http.Request) error {
			err := <-errs
			if s.User() == "closer" {
				s.Close(4000, "") // closed and refused: it was refused
			}
			return err
		}
		cfg.OnClose = func(*backend.Session, backend.CloseReason) { closed.Add(1) }
	})
	m := c.members[0]
	for _, test := range []struct {
		name       string
		err        error
		status     int
		retryAfter string
		body       string
	}{
		{"refused", &backend.Refusal{Status: 403, Text: "not you"}, 403, "", "not you\n"},
		{"wrapped", fmt.Errorf("no: %w", &backend.Refusal{Status: 429, Text: "slow down", RetryAfter: 1200 * time.Millisecond}), 429, "2", "slow down\n"},
		{"any other error", errors.New("secret database name"), 500, "", "internal error\n"},
		{"a status that is none", &backend.Refusal{Status: 7, Text: "x"}, 500, "", "x\n"},
		{"a status that is no refusal", &backend.Refusal{Status: 200, Text: "x"}, 500, "", "x\n"},
	} {
		for _, user := range []string{"alice", "closer"} {
			t.Run(test.name+"/"+user, func(t *testing.T) {
				errs <- test.err
				s := m.socket(t)
				s.write([]byte(handshake(user)))
				answer := s.answer()
				body, _ := io.ReadAll(answer.Body)
				if answer.StatusCode != test.status || answer.Header.Get("Retry-After") != test.retryAfter || string(body) != test.body {
					t.Errorf("%d, Retry-After %q, %q", answer.StatusCode, answer.Header.Get("Retry-After"), body)
				}
				s.want("end") // the connection is not kept
			})
		}
	}
	if m.Sessions() != 0 || closed.Load() != 0 {
		t.Errorf("%d sessions, %d OnClose; want none", m.Sessions(), closed.Load())
	}
}

func TestSendInOnOpenComesRightBehindThe101(t *testing.T) {
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.OnOpen = func(s *backend.Session, _ *http.Request) error {
			_ = s.Send(backend.Text("welcome"))
			_ = s.Send(backend.Message{Data: []byte{7}, Binary: true})
			return nil
		}
		cfg.OnMessage = func(s *backend.Session, m backend.Message) { _ = s.Send(m) }
	})
	c.members[0].open(t, "alice", text("early")...).want("text welcome", "binary \x07", "text early")
}

func TestCloseInHandlers(t *testing.T) {
	ended := make(chan backend.CloseReason, 1)
	var handled atomic.Int32
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.OnOpen = func(s *backend.Session, _ *http.Request) error {
			if s.User() == "in-open" {
				_ = s.Send(backend.Text("goodbye"))
				s.Close(4001, "too late")
				s.Close(4002, "the second does nothing")
			}
			return nil
		}
		cfg.OnMessage = func(s *backend.Session, m backend.Message) {
			handled.Add(1)
			s.Close(4003, "enough")
			if err := s.Send(m); !errors.Is(err, backend.ErrSessionClosed) {
				t.Errorf("Send after Close: %v", err)
			}
		}
		cfg.OnClose = func(s *backend.Session, reason backend.CloseReason) {
			select {
			case <-s.Done():
			default:
				t.Error("OnClose before Done")
			}
			if err := s.Send(backend.Text("x")); !errors.Is(err, backend.ErrSessionClosed) {
				t.Errorf("Send in OnClose: %v", err)
			}
			ended <- reason
		}
	})
	m := c.members[0]
	s := m.open(t, "in-open", text("ignored")...)
	s.want("text goodbye", "close 4001 too late", "end")
	s.Close()
	wantReason(t, ended, backend.ClosedByService)
	if n := handled.Load(); n != 0 {
		t.Errorf("OnMessage was called for a session that was closed in OnOpen")
	}

	three := append(append(text("1"), text("2")...), text("3")...)
	s = m.open(t, "in-message")
	s.write(three)
	s.want("close 4003 enough", "end")
	s.write(closing(4003, "")) // the client's half of the handshake
	s.Close()
	wantReason(t, ended, backend.ClosedByService)
	if n := handled.Load(); n != 1 {
		t.Errorf("OnMessage was called %d times; what was read ahead of Close is dropped", n)
	}
}

func TestCloseTakesOnlyWhatMayBeSent(t *testing.T) {
	type closing struct {
		code   int
		reason string
	}
	next := make(chan closing, 1)
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.OnMessage = func(s *backend.Session, _ backend.Message) {
			c := <-next
			s.Close(c.code, c.reason)
		}
	})
	long := strings.Repeat("é", 100)
	for _, test := range []struct {
		closing
		want string
	}{
		{closing{0, ""}, "close 1000"}, {closing{4999, "x"}, "close 4999 x"}, {closing{1006, "x"}, "close 1000 x"},
		{closing{-1, ""}, "close 1000"}, {closing{1 << 17, ""}, "close 1000"}, {closing{5000, ""}, "close 1000"},
		{closing{4000, long}, "close 4000 " + long[:122]}, {closing{4000, "a\xffb"}, "close 4000 ab"},
	} {
		next <- test.closing
		s := c.members[0].open(t, "alice", text("close me")...)
		if got := s.next(); got != test.want {
			t.Errorf("%+v: %q, want %q", test.closing, got, test.want)
		}
	}
}

// OnClose comes once and last, whoever ends the session, and however much is still in the inbox.
func TestOnCloseIsLast(t *testing.T) {
	const messages = 40
	gate := make(chan struct{})
	events := make(chan string, messages+2)
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.OnMessage = func(_ *backend.Session, m backend.Message) { <-gate; events <- string(m.Data) }
		cfg.OnClose = func(_ *backend.Session, reason backend.CloseReason) { events <- reason.String() }
	})
	m := c.members[0]
	s := m.open(t, "alice")
	for i := range messages {
		s.write(text(fmt.Sprint(i)))
	}
	s.write(closing(1000, ""))
	s.want("close 1000", "end")
	s.Close()
	testkit.Eventually(t, 5*time.Second, func() bool { return m.Sessions() == 0 }, "the session out of the table")
	close(gate)
	for i := range messages {
		if got := <-events; got != fmt.Sprint(i) {
			t.Fatalf("event %d is %q", i, got)
		}
	}
	if got := <-events; got != "client" {
		t.Fatalf("last event %q", got)
	}
	if err := m.stop(); err != nil { // every handler has returned now
		t.Fatal(err)
	}
	select {
	case got := <-events:
		t.Fatalf("behind OnClose: %q", got)
	default:
	}
}

// A handler's panic costs its own session.
func TestPanickingHandlers(t *testing.T) {
	ended := make(chan backend.CloseReason, 4)
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.OnOpen = func(s *backend.Session, _ *http.Request) error {
			if s.User() == "in-open" {
				panic("in OnOpen")
			}
			return nil
		}
		cfg.OnMessage = func(s *backend.Session, m backend.Message) {
			if string(m.Data) == "panic" {
				panic("in OnMessage")
			}
			_ = s.Send(m)
		}
		cfg.OnClose = func(s *backend.Session, reason backend.CloseReason) {
			ended <- reason
			if s.User() == "in-close" {
				panic("in OnClose")
			}
		}
	})
	m := c.members[0]
	other := m.open(t, "other")

	s := m.socket(t)
	s.write([]byte(handshake("in-open")))
	if answer := s.answer(); answer.StatusCode != http.StatusInternalServerError {
		t.Errorf("OnOpen panics: %s", answer.Status)
	}
	if n := len(m.SessionsOf("in-open")); n != 0 {
		t.Errorf("%d sessions of a user whose OnOpen panicked", n)
	}
	if n, err := m.Push(context.Background(), "in-open", backend.Text("x")); n != 0 || err != nil {
		t.Errorf("push to it: %d, %v", n, err)
	}

	s = m.open(t, "in-message")
	s.write(append(text("panic"), text("never handled")...))
	s.want("close 1011 internal error", "end")
	s.Close()
	wantReason(t, ended, backend.Panicked)

	m.open(t, "in-close").Close()
	wantReason(t, ended, backend.ConnectionLost)

	other.write(text("still here"))
	other.want("text still here")
}

func TestHandshake(t *testing.T) {
	opened := make(chan *backend.Session, 1)
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.Subprotocols = []string{"v2", "v1"}
		cfg.Device = "header:X-Device"
		cfg.OnOpen = func(s *backend.Session, _ *http.Request) error { opened <- s; return nil }
	})
	m := c.members[0]
	for _, test := range []struct {
		name   string
		lines  []string // "-" leaves a line out
		status int
	}{
		{"good", nil, 101},
		{"no user", []string{"X-Selvedge-User:-"}, 400},
		{"two users", []string{"X-Selvedge-User: alice", "X-Selvedge-User: bob"}, 400},
		{"empty user", []string{"X-Selvedge-User: "}, 400},
		{"escape cut short", []string{"X-Selvedge-User: a%2"}, 400},
		{"control character", []string{"X-Selvedge-User: a%0Ab"}, 400},
		{"not UTF-8", []string{"X-Selvedge-User: %ff"}, 400},
		{"256 bytes", []string{"X-Selvedge-User: " + strings.Repeat("%41", 256)}, 101},
		{"257 bytes", []string{"X-Selvedge-User: " + strings.Repeat("%41", 257)}, 400},
		{"no upgrade", []string{"Upgrade:-"}, 426},
		{"another upgrade", []string{"Upgrade: h2c"}, 426},
		{"upgrade among others", []string{"Upgrade: foo, WebSocket"}, 101},
		{"no Connection", []string{"Connection:-"}, 400},
		{"Connection with more", []string{"Connection: keep-alive, upgrade"}, 101},
		{"old version", []string{"Sec-WebSocket-Version: 8"}, 426},
		{"no version", []string{"Sec-WebSocket-Version:-"}, 426},
		{"no key", []string{"Sec-WebSocket-Key:-"}, 400},
		{"short key", []string{"Sec-WebSocket-Key: c2hvcnQ="}, 400},
		{"garbage key", []string{"Sec-WebSocket-Key: ????????????????????????"}, 400},
		{"a body", []string{"Content-Length: 4"}, 400},
		{"devices that differ", []string{"X-Device: a", "X-Device: b"}, 400},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := m.socket(t)
			s.write([]byte(handshake("al%69ce", test.lines...)))
			if test.name == "a body" {
				s.write([]byte("body"))
			}
			answer := s.answer()
			if answer.StatusCode != test.status {
				t.Fatalf("%s, want %d", answer.Status, test.status)
			}
			if test.status == 101 {
				<-opened
				return
			}
			_, _ = io.Copy(io.Discard, answer.Body)
			s.want("end") // not left open by whoever refused
			if test.status == 426 && (answer.Header.Get("Sec-WebSocket-Version") != "13" || answer.Header.Get("Upgrade") != "websocket") {
				t.Errorf("426 with %v; it must say what would be right", answer.Header)
			}
			if len(opened) > 0 {
				t.Errorf("OnOpen heard of it")
			}
		})
	}

	t.Run("what the session knows", func(t *testing.T) {
		s := m.socket(t)
		s.write([]byte(handshake("al%C3%AFce", "X-Device: phone", "X-Forwarded-For: 192.0.2.7, 10.0.0.1", "Sec-WebSocket-Protocol: v0, v1, v2")))
		answer := s.answer()
		if got := answer.Header.Get("Sec-WebSocket-Protocol"); got != "v1" {
			t.Errorf("subprotocol %q; the client's first that the service speaks is v1", got)
		}
		session := <-opened
		if session.User() != "alïce" || session.Device() != "phone" || session.Address() != "192.0.2.7" ||
			session.ID() == "" || time.Since(session.Since()) > time.Minute {
			t.Errorf("%q %q %q %q", session.User(), session.Device(), session.Address(), session.ID())
		}
	})
	t.Run("no subprotocol in common", func(t *testing.T) {
		s := m.socket(t)
		s.write([]byte(handshake("alice", "Sec-WebSocket-Protocol: v0")))
		answer := s.answer()
		<-opened
		if _, there := answer.Header["Sec-Websocket-Protocol"]; there || answer.StatusCode != http.StatusSwitchingProtocols {
			t.Errorf("%s, %v", answer.Status, answer.Header)
		}
	})
}

// The edge's plain requests go to the service; Handler alone answers them with 426.
func TestPlainRequests(t *testing.T) {
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.HTTP = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "plain") })
	})
	s := c.members[0].socket(t)
	s.write([]byte("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
	if body, _ := io.ReadAll(s.answer().Body); string(body) != "plain" {
		t.Errorf("got %q", body)
	}
}
