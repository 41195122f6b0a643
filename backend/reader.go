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
// messages it holds nothing. It belongs to the session's loop.
type reader struct {
	begun *unfinished // nil where the last chunk ended with a message
}

// unfinished is what has arrived of a message that has not ended.
type unfinished struct {
	rest  []byte // of a frame that has not arrived whole; at most a message plus a header
	whole []byte // fragments
	op    ws.OpCode
	open  bool // a fragmented message is under way

	deflated bool // it is
	valid    int  // bytes of whole that were seen to be UTF-8, if it is to be
}

// terms are what a client's frames must keep to.
type terms struct {
	limit   int  // bytes of a message, as it is on the wire
	deflate bool // permessage-deflate was agreed on
}

// frameFunc takes a control frame, or a whole message. A payload is valid until it returns. Text is checked to be UTF-8, fragment by fragment,
// unless it is deflated.
type frameFunc func(op ws.OpCode, payload []byte, deflated bool) error

// violation ends a session: the close code to send, and why, for the client's developer.
type violation struct {
	code ws.StatusCode
	text string
}

var errNotUTF8 = &violation{ws.StatusInvalidFramePayloadData, "text is not UTF-8"}

// rsv1 is the first reserved bit in [ws.Header.Rsv].
const rsv1 = 4

func (v *violation) Error() string { return fmt.Sprintf("%d %s", v.code, v.text) }

// headerSource is what gobwas/ws reads a header from; pooled, since both parts escape to the heap.
type headerSource struct {
	bytes.Reader
	scratch [ws.MaxHeaderSize - 2]byte
}

var headerSources = sync.Pool{New: func() any { return new(headerSource) }}

// feed parses chunk, which it may change (it unmasks in place), and calls frame for each control frame and each whole message.
// Errors are violations, or what frame returned; after one, feed must not be called again.
func (r *reader) feed(chunk []byte, t terms, frame frameFunc) error {
	var u unfinished // on the stack: most chunks end with a message
	if r.begun != nil {
		u = *r.begun
	}
	if err := u.feed(chunk, t, frame); err != nil {
		return err
	}
	switch {
	case u.rest == nil && !u.open:
		r.begun = nil
	case r.begun == nil:
		kept := u
		r.begun = &kept
	default:
		*r.begun = u
	}
	return nil
}

func (u *unfinished) feed(chunk []byte, t terms, frame frameFunc) error {
	buf := chunk
	if len(u.rest) > 0 {
		u.rest = append(u.rest, chunk...)
		buf = u.rest
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
		size := len(buf) - source.Len()
		if size != ws.HeaderSize(header) {
			return &violation{ws.StatusProtocolError, "a length in more bytes than it needs"} // RFC 6455, 5.2
		}
		if err := u.check(header, t); err != nil {
			return err
		}
		if int64(source.Len()) < header.Length {
			break
		}
		payload := buf[size : size+int(header.Length)]
		buf = buf[size+int(header.Length):]
		ws.Cipher(payload, header.Mask, 0)
		if err := u.accept(header, payload, frame); err != nil {
			return err
		}
	}
	if len(buf) == 0 {
		u.rest = nil
	} else if len(u.rest) == 0 || len(buf) < len(u.rest) {
		u.rest = append([]byte(nil), buf...)
	}
	return nil
}

// check refuses a frame by its header alone, before any of its payload is kept.
func (u *unfinished) check(h ws.Header, t terms) error {
	state := ws.StateServerSide
	if u.open {
		state = state.Set(ws.StateFragmented)
	}
	if t.deflate && !u.open && h.OpCode.IsData() {
		h.Rsv &^= rsv1 // of a message's first frame: it is deflated (RFC 7692, 6)
	}
	if err := ws.CheckHeader(h, state); err != nil {
		return &violation{ws.StatusProtocolError, err.Error()}
	}
	if h.OpCode.IsData() && h.Length > int64(t.limit-len(u.whole)) {
		return &violation{ws.StatusMessageTooBig, fmt.Sprintf("a message may have %d bytes", t.limit)}
	}
	return nil
}

func (u *unfinished) accept(h ws.Header, payload []byte, frame frameFunc) error {
	if h.OpCode.IsControl() {
		return frame(h.OpCode, payload, false)
	}
	if !u.open && h.Fin {
		return finishMessage(h.OpCode, payload, h.Rsv&rsv1 != 0, frame)
	}
	if !u.open {
		u.open, u.op, u.deflated = true, h.OpCode, h.Rsv&rsv1 != 0
	}
	u.whole = append(u.whole, payload...)
	if u.op == ws.OpText && !u.deflated {
		n, ok := validUTF8(u.whole[u.valid:], h.Fin)
		if u.valid += n; !ok {
			return errNotUTF8
		}
	}
	if !h.Fin {
		return nil
	}
	message := u.whole
	u.open, u.whole, u.valid = false, nil, 0
	return frame(u.op, message, u.deflated)
}

// validUTF8 tells whether text is UTF-8, but for a character at its end that more bytes could complete, unless those are the last. The first n
// bytes need not be looked at again.
func validUTF8(text []byte, last bool) (n int, ok bool) {
	if utf8.Valid(text) {
		return len(text), true
	}
	for i := len(text) - 1; !last && i >= max(0, len(text)-utf8.UTFMax); i-- {
		if utf8.RuneStart(text[i]) {
			return i, !utf8.FullRune(text[i:]) && utf8.Valid(text[:i])
		}
	}
	return 0, false
}

func finishMessage(op ws.OpCode, payload []byte, deflated bool, frame frameFunc) error {
	if op == ws.OpText && !deflated && !utf8.Valid(payload) {
		return errNotUTF8
	}
	return frame(op, payload, deflated)
}
