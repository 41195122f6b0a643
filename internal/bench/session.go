package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"

	"github.com/selvedge/selvedge/internal/reactor"
)

// session is a client's end of one WebSocket: a descriptor and no goroutine. All of it belongs to the holder's loop.
type session struct {
	holder *holder
	user   uint32
	fd     int
	reg    reactor.Registration
	rest   []byte // the beginning of a frame whose end is still under way; nil between frames
}

// Ready reads what has come.
func (s *session) Ready(reactor.Events) {
	scratch := s.holder.loop.Scratch()
	for s.fd >= 0 {
		n, err := reactor.Read(s.fd, scratch)
		switch {
		case errors.Is(err, reactor.ErrAgain):
			s.reg.Drained(reactor.Readable | reactor.Writable)
			return
		case errors.Is(err, io.EOF):
			s.end("the connection was closed")
		case err != nil:
			s.end(err.Error())
		default:
			s.feed(scratch[:n])
		}
	}
}

// feed takes bytes as they come; they are the caller's again when it returns.
func (s *session) feed(data []byte) {
	if s.rest != nil {
		data = append(s.rest, data...)
		s.rest = nil
	}
	for len(data) > 0 && s.fd >= 0 {
		opcode, payload, size, err := parseFrame(data)
		switch {
		case err != nil:
			s.end(err.Error())
			return
		case size == 0:
			s.rest = append([]byte(nil), data...)
			return
		case opcode == ws.OpBinary:
			s.holder.tally.take(payload, s.user, monotonic())
		case opcode == ws.OpPing:
			pong := ws.MustCompileFrame(ws.MaskFrameInPlace(ws.NewPongFrame(bytes.Clone(payload))))
			if n, err := reactor.Write(s.fd, pong); n < len(pong) {
				s.end(fmt.Sprintf("%d of %d bytes of a pong written: %v", n, len(pong), err))
				return
			}
		case opcode == ws.OpClose:
			s.end(fmt.Sprintf("closed with %q", payload))
			return
		}
		data = data[size:]
	}
}

// send writes one message. A message is small and the session idle: a socket that does not take it whole is broken.
func (s *session) send(m stamp) {
	if s.fd < 0 {
		return
	}
	frame := ws.MustCompileFrame(ws.MaskFrameInPlace(ws.NewBinaryFrame(m.encode())))
	if n, err := reactor.Write(s.fd, frame); n < len(frame) {
		s.end(fmt.Sprintf("%d of %d bytes written: %v", n, len(frame), err))
	}
}

// end gives up a session that should have stayed open.
func (s *session) end(why string) {
	s.holder.tally.problem(userName(int(s.user)) + ": " + why)
	s.close()
}

func (s *session) close() {
	if s.fd < 0 {
		return
	}
	s.reg.Unregister()
	_ = unix.Close(s.fd) // the descriptor is gone whatever it says
	s.fd = -1
	s.holder.tally.Open--
}

// parseFrame finds one frame of a server (RFC 6455, section 5.2) at the start of data. size is 0 while its end has not come.
func parseFrame(data []byte) (opcode ws.OpCode, payload []byte, size int, err error) {
	if len(data) < 2 {
		return 0, nil, 0, nil
	}
	if data[0]&0xf0 != 0x80 || data[1]&0x80 != 0 {
		return 0, nil, 0, fmt.Errorf("frame head %x: fragmented, masked or with an extension", data[:2])
	}
	head, length := 2, int(data[1])
	switch length {
	case 126:
		if len(data) < 4 {
			return 0, nil, 0, nil
		}
		head, length = 4, int(data[2])<<8|int(data[3])
	case 127:
		return 0, nil, 0, errors.New("a frame above 64 KiB, which nobody sent")
	}
	if len(data) < head+length {
		return 0, nil, 0, nil
	}
	return ws.OpCode(data[0] & 0x0f), data[head : head+length], head + length, nil
}
