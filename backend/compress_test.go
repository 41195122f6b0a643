package backend_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsflate"

	"github.com/selvedge/selvedge/backend"
)

const offerDeflate = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"

// openWith makes a session by a handshake with further lines, and returns the header of the answer.
func (m *member) openWith(t *testing.T, user string, lines ...string) (*socket, http.Header) {
	t.Helper()
	s := m.socket(t)
	s.write([]byte(handshake(user, lines...)))
	answer := s.answer()
	if answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade with %q: %s", lines, answer.Status)
	}
	return s, answer.Header
}

// packed is a client's deflated message in one frame.
func packed(op ws.OpCode, payload string) []byte { return raw(true, 4, op, squeeze(payload)) }

func squeeze(payload string) string {
	data, err := wsflate.DefaultHelper.Compress([]byte(payload))
	if err != nil {
		panic(err)
	}
	return string(data)
}

// message reads one message, deflated or not.
func (s *socket) message() (payload string, deflated bool) {
	s.t.Helper()
	f, err := ws.ReadFrame(s.in)
	if err != nil {
		s.t.Fatal(err)
	}
	deflated = f.Header.Rsv1()
	if f, err = wsflate.DecompressFrame(f); err != nil {
		s.t.Fatal(err)
	}
	return string(f.Payload), deflated
}

func TestDeflateIsNegotiated(t *testing.T) {
	both := "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	for _, on := range []bool{true, false} {
		c := newCluster(t, 1, func(cfg *backend.Config) { cfg.Compress = on })
		for _, test := range []struct{ offer, want string }{
			{"", ""},
			{"permessage-deflate", both},
			{"permessage-deflate; client_max_window_bits", both},
			{"permessage-deflate; client_max_window_bits=10; server_no_context_takeover; client_no_context_takeover", both},
			{"permessage-deflate; server_max_window_bits=10", ""}, // our window is what it is
			{"permessage-deflate; server_max_window_bits=10, permessage-deflate", both},
			{"permessage-deflate; nonsense", ""},
			{"permessage-deflate; nonsense, permessage-deflate", both},
			{"x-webkit-deflate-frame", ""},
		} {
			lines := []string{}
			if test.offer != "" {
				lines = append(lines, "Sec-WebSocket-Extensions: "+test.offer)
			}
			_, header := c.members[0].openWith(t, "alice", lines...)
			want := test.want
			if !on {
				want = ""
			}
			got := strings.ReplaceAll(header.Get("Sec-WebSocket-Extensions"), ";", "; ")
			if strings.Join(strings.Fields(got), " ") != want {
				t.Errorf("on %v, offered %q: agreed to %q, want %q", on, test.offer, got, want)
			}
		}
	}
}

// Of a user's sessions each gets a push in its own way; what they send comes to the service alike.
func TestDeflatedMessages(t *testing.T) {
	handled := make(chan backend.Message, 4)
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.Compress = true
		cfg.OnMessage = func(_ *backend.Session, m backend.Message) { handled <- m }
	})
	m := c.members[0]
	plain := m.open(t, "alice")
	one, _ := m.openWith(t, "alice", offerDeflate)
	two, _ := m.openWith(t, "alice", offerDeflate)
	long := strings.Repeat("all work and no play ", 50)
	for _, text := range []string{long, "short", long + "!"} {
		if n, err := m.Push(context.Background(), "alice", backend.Text(text)); n != 3 || err != nil {
			t.Fatalf("push: %d, %v", n, err)
		}
		for i, s := range []*socket{plain, one, two} {
			if got, deflated := s.message(); got != text || deflated != (i > 0 && len(text) > 100) {
				t.Errorf("session %d: %.40q, deflated %v", i, got, deflated)
			}
		}
	}
	squeezed := squeeze(long)
	for name, frames := range map[string][]byte{
		"in one frame": packed(ws.OpText, long),
		"in fragments": append(append(raw(false, 4, ws.OpText, squeezed[:9]), raw(false, 0, 0, squeezed[9:20])...), raw(true, 0, 0, squeezed[20:])...),
		"plain":        text(long),
	} {
		one.write(frames)
		if got := <-handled; string(got.Data) != long || got.Binary {
			t.Errorf("%s: %.40q", name, got.Data)
		}
	}
	two.write(packed(ws.OpBinary, "\xff"))
	if got := <-handled; string(got.Data) != "\xff" || !got.Binary {
		t.Errorf("binary: %+v", got)
	}
}

// What a client must not do with the extension, and what its session ends by. Nothing behind a message that is no good is handled.
func TestDeflateProtocol(t *testing.T) {
	ended := make(chan backend.CloseReason, 4)
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.Compress, cfg.MessageBytes = true, testMessageBytes
		cfg.OnMessage = func(s *backend.Session, m backend.Message) {
			if string(m.Data) == "behind" {
				t.Errorf("%s: what came behind is handled", s.User())
			}
		}
		cfg.OnClose = func(_ *backend.Session, reason backend.CloseReason) { ended <- reason }
	})
	m := c.members[0]
	bomb := squeeze(strings.Repeat("\x00", 100*testMessageBytes))
	if len(bomb) > testMessageBytes {
		t.Fatalf("the bomb has %d bytes", len(bomb))
	}
	for i, test := range []struct {
		name   string
		sends  []byte
		want   string
		reason backend.CloseReason
	}{
		{"bomb", raw(true, 4, ws.OpBinary, bomb), "close 1009", backend.TooBig},
		{"bomb in fragments", append(raw(false, 4, ws.OpBinary, bomb[:50]), raw(true, 0, 0, bomb[50:])...), "close 1009", backend.TooBig},
		{"too big as it is", header(ws.OpBinary|0x40, testMessageBytes+1), "close 1009", backend.TooBig},
		{"garbage", raw(true, 4, ws.OpBinary, "\xff\xff\xff"), "close 1007", backend.ProtocolError},
		{"cut", raw(true, 4, ws.OpText, squeeze(strings.Repeat("selvedge", 20))[:8]), "close 1007", backend.ProtocolError},
		{"text that is not UTF-8", packed(ws.OpText, "\xff"), "close 1007", backend.ProtocolError},
		{"plain text that is not UTF-8", text("\xff"), "close 1007", backend.ProtocolError},
		{"bit on a later fragment", append(raw(false, 4, ws.OpText, "a"), raw(true, 4, 0, "b")...), "close 1002", backend.ProtocolError},
		{"bit on a ping", raw(true, 4, ws.OpPing, "a"), "close 1002", backend.ProtocolError},
		{"bit on a close", raw(true, 4, ws.OpClose, ""), "close 1002", backend.ProtocolError},
		{"bits 1 and 2", raw(true, 6, ws.OpText, "a"), "close 1002", backend.ProtocolError},
		{"bit 2", raw(true, 2, ws.OpText, "a"), "close 1002", backend.ProtocolError},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, _ := m.openWith(t, fmt.Sprint("user-", i), offerDeflate)
			s.write(append(test.sends, text("behind")...))
			s.want(test.want, "end")
			s.Close()
			wantReason(t, ended, test.reason)
		})
	}
}
