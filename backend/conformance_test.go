package backend_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsflate"

	"github.com/selvedge/selvedge/backend"
)

// conformance is a member that sends everything back, whatever its size.
func conformance(t *testing.T) *member {
	return newCluster(t, 1, func(cfg *backend.Config) {
		cfg.Compress, cfg.MessageBytes, cfg.QueueBytes = true, 4<<20, 64<<20
		cfg.PingEvery = -1 // a busy machine takes longer than the least of them
		cfg.OnMessage = func(s *backend.Session, m backend.Message) { _ = s.Send(m) }
	}).members[0]
}

// fragmented is a message in frames of so many bytes each.
func fragmented(rsv byte, op ws.OpCode, payload string, size int) (frames []byte) {
	for {
		n := min(size, len(payload))
		frames = append(frames, raw(n == len(payload), rsv, op, payload[:n])...)
		if payload = payload[n:]; len(payload) == 0 {
			return frames
		}
		op, rsv = ws.OpContinuation, 0
	}
}

// exchange writes frames in pieces of chop bytes, and expects messages back.
func (s *socket) exchange(frames []byte, chop int, op ws.OpCode, want ...string) {
	s.t.Helper()
	_ = s.SetDeadline(time.Now().Add(30 * time.Second))
	written := make(chan error, 1)
	go func() {
		for piece := range slices.Chunk(frames, chop) {
			if _, err := s.Write(piece); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	for _, text := range want {
		f, err := ws.ReadFrame(s.in)
		if err == nil {
			f, err = wsflate.DecompressFrame(f) // if it is deflated
		}
		if err != nil {
			s.t.Fatal(err)
		}
		got := string(f.Payload)
		if f.Header.OpCode != op || got != text {
			s.t.Fatalf("%v of %d bytes, %.40q; want %v of %d, %.40q", f.Header.OpCode, len(got), got, op, len(text), text)
		}
	}
	if err := <-written; err != nil {
		s.t.Fatal(err)
	}
}

// The case groups of the Autobahn test suite that go by size and shape: 1 (framing), 2 (pings), 5 (fragments), 9 (limits) and 10 (automatic fragments).
// 3, 4 and 7, and what is wrong in 1, 2 and 5, are in TestProtocol; 12 and 13 in TestDeflated* and below; 6 in TestUTF8.
func TestSizesAndShapes(t *testing.T) {
	m := conformance(t)
	for _, op := range []ws.OpCode{ws.OpText, ws.OpBinary} {
		s := m.open(t, "alice")
		for _, size := range []int{0, 1, 125, 126, 127, 128, 255, 256, 65535, 65536, 65537} { // 1.1, 1.2
			payload := strings.Repeat("*", size)
			for _, chop := range []int{1 << 20, 997} {
				s.exchange(raw(true, 0, op, payload), chop, op, payload)
			}
		}
		for _, size := range []int{1 << 16, 1 << 18, 1 << 20, 4 << 20} { // 9.1, 9.2, 9.5, 9.6
			payload := strings.Repeat("*", size)
			for _, chop := range []int{8 << 20, 2048} {
				s.exchange(raw(true, 0, op, payload), chop, op, payload)
			}
		}
		for _, size := range []int{64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20} { // 9.3, 9.4
			payload := strings.Repeat("*", 1<<20)
			s.exchange(fragmented(0, op, payload, size), 8<<20, op, payload)
		}
		payload := strings.Repeat("*", 65536)
		s.exchange(fragmented(0, op, payload, 1300), 8<<20, op, payload) // 10.1
		var many []byte
		var want []string
		for i := range 1000 { // 9.7, 9.8: many, one behind the other
			text := fmt.Sprintf("%0*d", i%64+4, i)
			many, want = append(many, raw(true, 0, op, text)...), append(want, text)
		}
		s.exchange(many, 8<<20, op, want...)
		s.Close()
	}
	s := m.open(t, "bob") // 2.10, 2.11
	var pings []byte
	var want []string
	for i := range 10 {
		pings, want = append(pings, raw(true, 0, ws.OpPing, fmt.Sprint("ping ", i))...), append(want, fmt.Sprint("ping ", i))
	}
	s.exchange(pings, 1<<10, ws.OpPong, want...)
	s.exchange(pings, 1, ws.OpPong, want...)
	frames := slices.Concat(raw(false, 0, ws.OpText, "one "), raw(false, 0, 0, "two "), raw(true, 0, ws.OpPing, "ping 0")) // 5.19: control frames between fragments, and a pause
	s.exchange(frames, 1<<10, ws.OpPong, "ping 0")
	s.exchange(slices.Concat(raw(false, 0, 0, "three "), raw(true, 0, 0, "four")), 1<<10, ws.OpText, "one two three four")
}

// Group 6: what is UTF-8 comes back however it is cut into frames and packets; what is not closes with 1007, in the frame that shows it.
func TestUTF8(t *testing.T) {
	m := conformance(t)
	valid := []string{
		"Hello-µ@ßöäüàá-UTF-8!!", "κόσμε", "\x00", "\u0080", "\u0800", "\U00010000", "\x7f", "\u07ff", "\uffff", "\ufffd", "\ufffe", "\U0010ffff",
		"\ud7ff", "\ue000", "\U0001fffe", "\U0001ffff", "\U0002fffe", "\U000ffffe", "\ufeffmark", "\u2022",
	}
	s := m.open(t, "alice")
	for _, text := range valid {
		for size := 1; size <= len(text); size++ {
			frames := fragmented(0, ws.OpText, text, size)
			s.exchange(frames, 1<<10, ws.OpText, text)
			s.exchange(frames, 3, ws.OpText, text)
		}
	}
	invalid := []string{
		"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80\x65\x64\x69\x74\x65\x64", // kosme, a surrogate, edited: 6.3
		"\x80", "\xbf", "\x80\xbf", "\x80\xbf\x80", "\xf8\x88\x80\x80\x80", "\xfc\x84\x80\x80\x80\x80", "\xf7\xbf\xbf\xbf", "\xfb\xbf\xbf\xbf\xbf",
		"\xfd\xbf\xbf\xbf\xbf\xbf", "\xf4\x90\x80\x80", "\xfe", "\xff", "\xfe\xfe\xff\xff", "\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xc1\xbf",
		"\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xc0\x80", "\xe0\x80\x80", "\xf0\x80\x80\x80", "\xed\xa0\x80", "\xed\xad\xbf", "\xed\xae\x80", "\xed\xaf\xbf",
		"\xed\xb0\x80", "\xed\xbe\x80", "\xed\xbf\xbf", "\xed\xa0\x80\xed\xb0\x80", "\xed\xaf\xbf\xed\xbf\xbf", "\xce", "\xe1\xbd", "\xf4\x8f\xbf", "a\xc3b",
	}
	for i, text := range invalid {
		if utf8.ValidString(text) {
			t.Fatalf("%q is valid", text)
		}
		for size := 1; size <= len(text); size++ {
			s := m.open(t, fmt.Sprint("user-", i, "-", size))
			s.write(fragmented(0, ws.OpText, text, size))
			s.want("close 1007", "end")
			s.Close()
		}
	}
	early := m.open(t, "early") // 6.4: the message never ends
	early.write(raw(false, 0, ws.OpText, "\xce\xba\xf4"))
	early.write(raw(false, 0, ws.OpContinuation, "\x90"))
	early.want("close 1007", "end")
}

// Groups 12 and 13: messages of many sizes, deflated, in frames of many sizes, one behind the other.
func TestDeflatedSizesAndShapes(t *testing.T) {
	m := conformance(t)
	var source strings.Builder
	for i := range 40_000 {
		fmt.Fprintf(&source, "%x:", i*i)
	}
	for _, op := range []ws.OpCode{ws.OpText, ws.OpBinary} {
		s, header := m.openWith(t, "alice", offerDeflate)
		if !strings.Contains(header.Get("Sec-WebSocket-Extensions"), "permessage-deflate") {
			t.Fatal(header)
		}
		for _, size := range []int{0, 16, 64, 256, 1024, 4096, 8192, 16384, 32768, 65536, 131072} {
			payload := source.String()[:size]
			squeezed := squeeze(payload)
			for _, cut := range []int{1 << 20, 256, 1024, 32768} {
				var frames []byte
				for range 20 {
					frames = append(frames, fragmented(4, op, squeezed, cut)...)
				}
				s.exchange(frames, 1<<20, op, slices.Repeat([]string{payload}, 20)...)
			}
		}
		s.Close()
	}
}
