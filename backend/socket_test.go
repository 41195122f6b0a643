package backend_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// socket is a raw connection to a member: what is written to it is what the member reads.
type socket struct {
	net.Conn
	t  *testing.T
	in *bufio.Reader
}

// handshake is the head of an upgrade; lines stand in it in place of those of the same name. "Name:-" leaves one out.
func handshake(user string, lines ...string) string {
	head := []string{
		"Host: chat", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "X-Selvedge-User: " + user,
	}
	text := "GET /ws HTTP/1.1\r\n"
	name := func(line string) string { before, _, _ := strings.Cut(line, ":"); return before }
	for _, line := range head {
		if !slices.ContainsFunc(lines, func(other string) bool { return name(other) == name(line) }) {
			text += line + "\r\n"
		}
	}
	for _, line := range lines {
		if line != name(line)+":-" {
			text += line + "\r\n"
		}
	}
	return text + "\r\n"
}

func (m *member) socket(t *testing.T) *socket {
	t.Helper()
	return dialSocket(t, m.Addr().String())
}

func dialSocket(t *testing.T, addr string) *socket {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &socket{conn, t, bufio.NewReader(conn)}
}

// open makes a session of user; behind goes out in the same packet as the request.
func (m *member) open(t *testing.T, user string, behind ...byte) *socket {
	t.Helper()
	s := m.socket(t)
	s.write(append([]byte(handshake(user)), behind...))
	if answer := s.answer(); answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %s", answer.Status)
	}
	return s
}

func (s *socket) write(data []byte) {
	s.t.Helper()
	if _, err := s.Write(data); err != nil {
		s.t.Fatal(err)
	}
}

func (s *socket) answer() *http.Response {
	s.t.Helper()
	_ = s.SetReadDeadline(time.Now().Add(10 * time.Second))
	answer, err := http.ReadResponse(s.in, nil)
	if err != nil {
		s.t.Fatalf("answer: %v", err)
	}
	return answer
}

// next returns the next frame as "opcode payload", a close frame as "close code reason", the end of the stream as "end".
func (s *socket) next() string {
	_ = s.SetReadDeadline(time.Now().Add(10 * time.Second))
	f, err := ws.ReadFrame(s.in)
	switch {
	case errors.Is(err, io.EOF):
		return "end"
	case err != nil:
		return "error: " + err.Error()
	case f.Header.Masked || f.Header.Rsv != 0 || !f.Header.Fin:
		return fmt.Sprintf("a server does not send such a frame: %+v", f.Header)
	case f.Header.OpCode == ws.OpClose:
		code, reason := ws.ParseCloseFrameData(f.Payload)
		return strings.TrimSpace(fmt.Sprintf("close %d %s", code, reason))
	}
	names := map[ws.OpCode]string{ws.OpText: "text", ws.OpBinary: "binary", ws.OpPong: "pong", ws.OpPing: "ping"}
	return names[f.Header.OpCode] + " " + string(f.Payload)
}

// want checks the next frames. A close frame is compared up to the length of what is wanted: its reason is for people. "..." stands
// for texts that may or may not come: a handler's answers are not waited for once the client has closed or erred.
func (s *socket) want(frames ...string) {
	s.t.Helper()
	for i, want := range frames {
		if want == "..." {
			continue
		}
		got := s.next()
		for i > 0 && frames[i-1] == "..." && strings.HasPrefix(got, "text ") {
			got = s.next()
		}
		if got != want && !(strings.HasPrefix(want, "close ") && strings.HasPrefix(got, want)) {
			s.t.Fatalf("frame %d: got %.200q, want %.200q", i, got, want)
		}
	}
}

// raw is a masked frame of any kind, as a client sends it.
func raw(fin bool, rsv byte, op ws.OpCode, payload string) []byte {
	f := ws.NewFrame(op, fin, []byte(payload))
	f.Header.Rsv = rsv
	return ws.MustCompileFrame(ws.MaskFrameInPlaceWith(f, [4]byte{0xa1, 0x02, 0x03, 0x7f}))
}

// maskedWith is a text with a mask of its own.
func maskedWith(mask [4]byte, payload string) []byte {
	return ws.MustCompileFrame(ws.MaskFrameWith(ws.NewTextFrame([]byte(payload)), mask))
}

func text(payload string) []byte { return raw(true, 0, ws.OpText, payload) }

func closing(code uint16, reason string) []byte {
	return raw(true, 0, ws.OpClose, string(ws.NewCloseFrameBody(ws.StatusCode(code), reason)))
}

// header is a masked frame's header alone.
func header(op ws.OpCode, length int64) []byte {
	var b strings.Builder
	if err := ws.WriteHeader(&b, ws.Header{Fin: true, OpCode: op, Masked: true, Length: length}); err != nil {
		panic(err)
	}
	return []byte(b.String())
}
