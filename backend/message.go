package backend

import (
	"hash/maphash"

	"github.com/gobwas/ws"
)

// Message is one WebSocket message.
type Message struct {
	Data   []byte
	Binary bool // else text, which must be UTF-8
}

// Text makes a text message.
func Text(s string) Message { return Message{Data: []byte(s)} }

func (m Message) opcode() ws.OpCode {
	if m.Binary {
		return ws.OpBinary
	}
	return ws.OpText
}

// frame is what a message looks like on every session's wire: compiled once, shared, never changed.
func (m Message) frame() []byte {
	return ws.MustCompileFrame(ws.NewFrame(m.opcode(), true, m.Data))
}

var payloadSeed = maphash.MakeSeed()

// fingerprint tells payloads of one message id apart, in this process.
func (m Message) fingerprint() uint64 {
	h := maphash.Bytes(payloadSeed, m.Data)
	if m.Binary {
		h = ^h
	}
	return h
}
