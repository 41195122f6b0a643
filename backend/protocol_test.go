package backend_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/selvedge/selvedge/backend"
)

const testMessageBytes = 1000

// echoing is a member that sends every message back, and tells how its sessions end.
func echoing(t *testing.T) (*member, <-chan backend.CloseReason) {
	ended := make(chan backend.CloseReason, 16)
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.MessageBytes = testMessageBytes
		cfg.OnMessage = func(s *backend.Session, m backend.Message) { _ = s.Send(m) }
		cfg.OnClose = func(_ *backend.Session, reason backend.CloseReason) { ended <- reason }
	})
	return c.members[0], ended
}

func wantReason(t *testing.T, ended <-chan backend.CloseReason, want backend.CloseReason) {
	t.Helper()
	select {
	case got := <-ended:
		if got != want {
			t.Fatalf("ended by %q, want %q", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("OnClose was not called; want %q", want)
	}
}

// RFC 6455 from the client's side: what goes out, what must come back, and what the session ends by.
func TestProtocol(t *testing.T) {
	const client, lost, protocol, tooBig = backend.ClosedByClient, backend.ConnectionLost, backend.ProtocolError, backend.TooBig
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	atLimit, above := strings.Repeat("x", testMessageBytes), strings.Repeat("x", testMessageBytes+1)
	unmasked := ws.MustCompileFrame(ws.NewTextFrame([]byte("hi")))
	tests := []struct {
		name   string
		sends  []byte
		want   []string
		reason backend.CloseReason
	}{
		{"text", text("hi"), []string{"text hi"}, lost},
		{"empty text", text(""), []string{"text "}, lost},
		{"binary", raw(true, 0, ws.OpBinary, "\x00\xff"), []string{"binary \x00\xff"}, lost},
		{"two messages", join(text("one"), text("two")), []string{"text one", "text two"}, lost},
		{"16-bit length", text(strings.Repeat("a", 200)), []string{"text " + strings.Repeat("a", 200)}, lost},
		{"a message of the largest size", text(atLimit), []string{"text " + atLimit}, lost},
		{"fragments", join(raw(false, 0, ws.OpText, "a"), raw(false, 0, 0, ""), raw(true, 0, 0, "b")), []string{"text ab"}, lost},
		{"binary fragments", join(raw(false, 0, ws.OpBinary, "a"), raw(true, 0, 0, "\xff")), []string{"binary a\xff"}, lost},
		{"ping", raw(true, 0, ws.OpPing, "are you there"), []string{"pong are you there"}, lost},
		{"empty ping", raw(true, 0, ws.OpPing, ""), []string{"pong "}, lost},
		{"the longest ping", raw(true, 0, ws.OpPing, atLimit[:125]), []string{"pong " + atLimit[:125]}, lost},
		{"ping between fragments", join(raw(false, 0, ws.OpText, "a"), raw(true, 0, ws.OpPing, "p"), raw(true, 0, 0, "b")),
			[]string{"pong p", "text ab"}, lost},
		{"pong nobody asked for", join(raw(true, 0, ws.OpPong, "x"), text("hi")), []string{"text hi"}, lost},
		{"UTF-8 split between fragments", join(raw(false, 0, ws.OpText, "\xce"), raw(true, 0, 0, "\xba")), []string{"text κ"}, lost},
		{"UTF-8 split at every byte", join(raw(false, 0, ws.OpText, "\xf4"), raw(false, 0, 0, "\x8f"), raw(true, 0, ws.OpPing, ""), raw(false, 0, 0, "\xbf"), raw(true, 0, 0, "\xbf")),
			[]string{"pong ", "text \U0010ffff"}, lost},
		{"many control frames between fragments", join(raw(true, 0, ws.OpPing, "1"), raw(false, 0, ws.OpBinary, ""), raw(true, 0, ws.OpPong, "2"), raw(true, 0, ws.OpPing, "3"),
			raw(false, 0, 0, "\xff"), raw(true, 0, ws.OpPing, ""), raw(true, 0, 0, "")), []string{"pong 1", "pong 3", "pong ", "binary \xff"}, lost},
		{"fragments of nothing", join(raw(false, 0, ws.OpText, ""), raw(false, 0, 0, ""), raw(true, 0, 0, "")), []string{"text "}, lost},
		{"a mask of zeros", maskedWith([4]byte{}, "zeros"), []string{"text zeros"}, lost},
		{"each frame its own mask", join(maskedWith([4]byte{1, 2, 3, 4}, "one"), maskedWith([4]byte{0xff, 0, 0xff, 0}, "two, longer than a word")),
			[]string{"text one", "text two, longer than a word"}, lost},
		{"limit by fragments", join(raw(false, 0, ws.OpText, atLimit[:900]), raw(true, 0, 0, atLimit[900:])), []string{"text " + atLimit}, lost},

		{"unmasked", unmasked, []string{"close 1002", "end"}, protocol},
		{"reserved bit 1", raw(true, 4, ws.OpText, "x"), []string{"close 1002", "end"}, protocol},
		{"reserved bit 2", raw(true, 2, ws.OpText, "x"), []string{"close 1002", "end"}, protocol},
		{"reserved bit 3", raw(true, 1, ws.OpPing, "x"), []string{"close 1002", "end"}, protocol},
		{"reserved bit of another fragment", join(raw(false, 0, ws.OpText, "x"), raw(true, 4, 0, "y")), []string{"close 1002", "end"}, protocol},
		{"unmasked ping", ws.MustCompileFrame(ws.NewPingFrame(nil)), []string{"close 1002", "end"}, protocol},
		{"unmasked fragment", join(raw(false, 0, ws.OpText, "x"), ws.MustCompileFrame(ws.NewFrame(0, true, nil))), []string{"close 1002", "end"}, protocol},
		{"close in fragments", raw(false, 0, ws.OpClose, "\x03\xe8"), []string{"close 1002", "end"}, protocol},
		{"close of 126 bytes", raw(true, 0, ws.OpClose, "\x03\xe8"+atLimit[:124]), []string{"close 1002", "end"}, protocol},
		{"16-bit length that is short", []byte{0x81, 0xfe, 0, 5, 0, 0, 0, 0, 'h', 'e', 'l', 'l', 'o'}, []string{"close 1002", "end"}, protocol},
		{"64-bit length that is short", []byte{0x81, 0xff, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0}, []string{"close 1002", "end"}, protocol},
		{"reserved opcode 3", raw(true, 0, 3, "x"), []string{"close 1002", "end"}, protocol},
		{"reserved opcode 11", raw(true, 0, 11, "x"), []string{"close 1002", "end"}, protocol},
		{"control frame of 126 bytes", raw(true, 0, ws.OpPing, atLimit[:126]), []string{"close 1002", "end"}, protocol},
		{"control frame in fragments", raw(false, 0, ws.OpPing, "x"), []string{"close 1002", "end"}, protocol},
		{"continuation of nothing", raw(true, 0, 0, "x"), []string{"close 1002", "end"}, protocol},
		{"text inside a text", join(raw(false, 0, ws.OpText, "x"), text("y")), []string{"close 1002", "end"}, protocol},
		{"length with its highest bit", []byte{0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0}, []string{"close 1002", "end"}, protocol},
		{"good before bad", join(text("good"), unmasked), []string{"...", "close 1002", "end"}, protocol},
		{"text that is not UTF-8", text("\xff"), []string{"close 1007", "end"}, protocol},
		{"text cut within a character", text("\xce"), []string{"close 1007", "end"}, protocol},
		{"fragments that are not UTF-8", join(raw(false, 0, ws.OpText, "\xce"), raw(true, 0, 0, "a")), []string{"close 1007", "end"}, protocol},
		{"surrogate", text("a\xed\xa0\x80"), []string{"close 1007", "end"}, protocol},
		{"overlong", text("\xc0\xaf"), []string{"close 1007", "end"}, protocol},
		{"above U+10FFFF", text("\xf4\x90\x80\x80"), []string{"close 1007", "end"}, protocol},
		{"surrogate in fragments", join(raw(false, 0, ws.OpText, "a\xed"), raw(true, 0, 0, "\xa0\x80")), []string{"close 1007", "end"}, protocol},
		{"not UTF-8, in a message that has not ended", join(text("good"), raw(false, 0, ws.OpText, "a\xff")), []string{"...", "close 1007", "end"}, protocol},
		{"not UTF-8 once its second half is there", join(raw(false, 0, ws.OpText, "\xf4"), raw(true, 0, ws.OpPing, ""), raw(false, 0, 0, "\x90")),
			[]string{"pong ", "close 1007", "end"}, protocol},
		{"too big, by its header alone", header(ws.OpText, testMessageBytes+1), []string{"close 1009", "end"}, tooBig},
		{"far too big", header(ws.OpBinary, 1<<62), []string{"close 1009", "end"}, tooBig},
		{"too big by fragments", join(raw(false, 0, ws.OpText, above[:600]), raw(false, 0, 0, above[600:])), []string{"close 1009", "end"}, tooBig},

		{"close", closing(1000, "bye"), []string{"close 1000", "end"}, client},
		{"close without a code", raw(true, 0, ws.OpClose, ""), []string{"close 1000", "end"}, client},
		{"close of one byte", raw(true, 0, ws.OpClose, "x"), []string{"close 1002", "end"}, protocol},
		{"close with a bad reason", closing(1000, "\xff"), []string{"close 1007", "end"}, protocol},
		{"the longest close", closing(1000, atLimit[:123]), []string{"close 1000", "end"}, client},
		{"close between fragments", join(raw(false, 0, ws.OpText, "x"), closing(1001, "")), []string{"close 1001", "end"}, client},
		{"bytes behind close", join(closing(1000, ""), text("ignored"), unmasked), []string{"close 1000", "end"}, client},
		{"message before close", join(text("last"), closing(4000, "")), []string{"...", "close 4000", "end"}, client},
	}
	for _, code := range []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		tests = append(tests, struct {
			name   string
			sends  []byte
			want   []string
			reason backend.CloseReason
		}{fmt.Sprint("close ", code), closing(code, ""), []string{fmt.Sprint("close ", code), "end"}, client})
	}
	for _, code := range []uint16{0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		tests = append(tests, struct {
			name   string
			sends  []byte
			want   []string
			reason backend.CloseReason
		}{fmt.Sprint("close ", code), closing(code, ""), []string{"close 1002", "end"}, protocol})
	}

	for _, op := range []ws.OpCode{4, 5, 6, 7, 12, 13, 14, 15} {
		tests = append(tests, struct {
			name   string
			sends  []byte
			want   []string
			reason backend.CloseReason
		}{fmt.Sprint("reserved opcode ", op), raw(true, 0, op, ""), []string{"close 1002", "end"}, protocol})
	}

	m, ended := echoing(t)
	for _, test := range tests {
		for _, way := range []struct {
			name string
			open func(t *testing.T) *socket
		}{
			{"at once", func(t *testing.T) *socket {
				s := m.open(t, "alice")
				s.write(test.sends)
				return s
			}},
			{"with the request", func(t *testing.T) *socket { return m.open(t, "alice", test.sends...) }},
			{"byte by byte", func(t *testing.T) *socket {
				s := m.open(t, "alice")
				for _, b := range test.sends {
					if _, err := s.Write([]byte{b}); err != nil {
						break // it closed before it had seen everything
					}
				}
				return s
			}},
		} {
			t.Run(test.name+"/"+way.name, func(t *testing.T) {
				s := way.open(t)
				s.want(test.want...)
				if !slices.Contains(test.want, "end") && test.reason == lost {
					// Nothing else comes: the next frame is the answer to this one.
					s.write(text("sentinel"))
					s.want("text sentinel")
				}
				s.Close()
				wantReason(t, ended, test.reason)
			})
		}
	}
}

func TestConnectionReset(t *testing.T) {
	m, ended := echoing(t)
	s := m.open(t, "alice")
	s.write(text("hi"))
	s.want("text hi")
	reset(t, s)
	wantReason(t, ended, backend.ConnectionLost)
}

// reset ends the connection with an RST.
func reset(t *testing.T, s *socket) {
	t.Helper()
	if err := s.Conn.(interface{ SetLinger(int) error }).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	s.Close()
}

// A client that ends its side without a close frame has gone (RFC 6455, 7.1.5); what it sent before counts.
func TestHalfClose(t *testing.T) {
	handled := make(chan string, 1)
	ended := make(chan backend.CloseReason, 1)
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.OnMessage = func(_ *backend.Session, m backend.Message) { handled <- string(m.Data) }
		cfg.OnClose = func(_ *backend.Session, reason backend.CloseReason) { ended <- reason }
	})
	s := c.members[0].open(t, "alice")
	s.write(text("last words"))
	if err := s.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	s.want("end")
	wantReason(t, ended, backend.ConnectionLost)
	if got := <-handled; got != "last words" { // before OnClose, so it is there
		t.Errorf("handled %q", got)
	}
}
