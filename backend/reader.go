package backend

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// reader turns the bytes of one client, in whatever chunks they arrive, into messages (RFC 6455, server side). Between two
// messages it holds no buffer. It belongs to the session's loop.
type reader struct {
	limit int    // bytes of one message, all fragments together
	rest  []byte // of a frame that has not arrived whole; at most limit plus a header
	whole []byte // fragments of a message that has not ended
	op    ws.OpCode
	open  bool // a fragmented message is under way
}

// violation ends a session: the close code to send, and why, for the client's developer.
type violation struct {
	code ws.StatusCode
	text string
}

func (v *violation) Error() string { return fmt.Sprintf("%d %s", v.code, v.text) }

// headerSource is what gobwas/ws reads a header from; pooled, since both parts escape to the heap.
type headerSource struct {
	bytes.Reader
	scratch [ws.MaxHeaderSize - 2]byte
}

var headerSources = sync.Pool{New: func() any { return new(headerSource) }}

// feed parses chunk, which it may change (it unmasks in place), and calls frame for each control frame and each whole message.
// A payload is valid until frame returns. Errors are violations, or what frame returned; after one, feed must not be called again.
func (r *reader) feed(chunk []byte, frame func(op ws.OpCode, payload []byte) error) error {
	buf := chunk
	if len(r.rest) > 0 {
		r.rest = append(r.rest, chunk...)
		buf = r.rest
	}
	source := headerSources.Get().(*headerSource)
	defer headerSources.Put(source)
	for len(buf) > 0 {
		source.Reset(buf)
		header, err := ws.ReadHeaderBuffer(source, source.scratch[:])
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return &violation{ws.StatusProtocolError, err.Error()}
		}
		if err := r.check(header); err != nil {
			return err
		}
		size := len(buf) - source.Len()
		if int64(source.Len()) < header.Length {
			break
		}
		payload := buf[size : size+int(header.Length)]
		buf = buf[size+int(header.Length):]
		ws.Cipher(payload, header.Mask, 0)
		if err := r.accept(header, payload, frame); err != nil {
			return err
		}
	}
	if len(buf) == 0 {
		r.rest = nil
	} else if len(r.rest) == 0 || len(buf) < len(r.rest) {
		r.rest = append([]byte(nil), buf...)
	}
	return nil
}

// check refuses a frame by its header alone, before any of its payload is kept.
func (r *reader) check(h ws.Header) error {
	state := ws.StateServerSide
	if r.open {
		state = state.Set(ws.StateFragmented)
	}
	if err := ws.CheckHeader(h, state); err != nil {
		return &violation{ws.StatusProtocolError, err.Error()}
	}
	if h.OpCode.IsData() && h.Length > int64(r.limit-len(r.whole)) {
		return &violation{ws.StatusMessageTooBig, fmt.Sprintf("a message may have %d bytes", r.limit)}
	}
	return nil
}

func (r *reader) accept(h ws.Header, payload []byte, frame func(ws.OpCode, []byte) error) error {
	if h.OpCode.IsControl() {
		return frame(h.OpCode, payload)
	}
	if !r.open && h.Fin {
		return finishMessage(h.OpCode, payload, frame)
	}
	if !r.open {
		r.open, r.op = true, h.OpCode
	}
	r.whole = append(r.whole, payload...)
	if !h.Fin {
		return nil
	}
	message := r.whole
	r.open, r.whole = false, nil
	return finishMessage(r.op, message, frame)
}

func finishMessage(op ws.OpCode, payload []byte, frame func(ws.OpCode, []byte) error) error {
	if op == ws.OpText && !utf8.Valid(payload) {
		return &violation{ws.StatusInvalidFramePayloadData, "text is not UTF-8"}
	}
	return frame(op, payload)
}
