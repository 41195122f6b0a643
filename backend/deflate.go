package backend

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsflate"
)

// permessage-deflate (RFC 7692) without context takeover, either way: each message stands for itself, so that an idle session holds no
// window, and one compressed frame serves all sessions.

// agreeWith makes negotiate, which is deflate's, decline an offer that it does not understand (RFC 7692, 5.1), since that must not fail
// the handshake, and tell s before the 101 goes out what was agreed on. (Option is a type of a module that this one does not import.)
func agreeWith[Option any](s *Session, deflate *wsflate.Extension, negotiate func(Option) (Option, error)) func(Option) (Option, error) {
	return func(offer Option) (accepted Option, _ error) {
		if answer, err := negotiate(offer); err == nil {
			accepted = answer
		}
		if _, agreed := deflate.Accepted(); agreed {
			s.startDeflating()
		}
		return accepted, nil
	}
}

// deflateFrom is the least payload, in bytes, that is worth it.
const deflateFrom = 128

// deflater makes frames; it weighs some 0.7 MB, so few are kept.
type deflater struct {
	w   *flate.Writer
	out bytes.Buffer
}

var deflaters = sync.Pool{New: func() any {
	w, _ := flate.NewWriter(nil, flate.BestSpeed) // errs for unknown levels only
	return &deflater{w: w}
}}

// deflateTail is what a flush ends with, and what is left out on the wire (RFC 7692, 7.2.1).
const deflateTail = "\x00\x00\xff\xff"

// deflateFrame returns frame, which is compiled and plain, with its payload deflated; frame itself where that makes it no shorter.
func deflateFrame(frame []byte) []byte {
	header, payload := splitFrame(frame)
	if !header.OpCode.IsData() || len(payload) < deflateFrom {
		return frame
	}
	d := deflaters.Get().(*deflater)
	defer deflaters.Put(d)
	d.out.Reset()
	d.w.Reset(&d.out)
	if _, err := d.w.Write(payload); err != nil {
		return frame // a buffer takes everything
	}
	if err := d.w.Flush(); err != nil {
		return frame
	}
	deflated := bytes.TrimSuffix(d.out.Bytes(), []byte(deflateTail))
	if len(deflated) >= len(payload) {
		return frame
	}
	header.Rsv, header.Length = rsv1, int64(len(deflated))
	return ws.MustCompileFrame(ws.Frame{Header: header, Payload: deflated})
}

// splitFrame takes a compiled frame of ours apart.
func splitFrame(frame []byte) (ws.Header, []byte) {
	size := 2
	switch frame[1] {
	case 126:
		size = 4
	case 127:
		size = 10
	}
	return ws.Header{Fin: true, OpCode: ws.OpCode(frame[0] & 0xf)}, frame[size:]
}

// lastDeflated is the newest frame that was deflated: a message goes to its sessions one after the other, and is deflated for the first.
// Where two broadcasts mix, each push in between costs one deflating more.
var lastDeflated atomic.Pointer[struct {
	of    *byte // the plain frame's first, which names it
	frame []byte
}]

// sharedDeflate returns the deflated frame that is the same for all sessions.
func sharedDeflate(frame []byte) []byte {
	if last := lastDeflated.Load(); last != nil && last.of == &frame[0] {
		return last.frame
	}
	deflated := deflateFrame(frame)
	lastDeflated.Store(&struct {
		of    *byte
		frame []byte
	}{&frame[0], deflated})
	return deflated
}

// inflater reads deflated messages; it weighs some 45 KB.
type inflater struct {
	src bytes.Reader
	out io.ReadCloser // a flate.Resetter
}

var inflaters = sync.Pool{New: func() any { return &inflater{out: flate.NewReader(nil)} }}

// inflate returns what data, which is the callee's to change, was deflated from. That may have limit bytes: no more are made, whatever
// data would become. Errors are violations.
func inflate(data []byte, limit int) ([]byte, error) {
	in := inflaters.Get().(*inflater)
	defer inflaters.Put(in)
	in.src.Reset(append(data, deflateTail+"\x01\x00\x00\xff\xff"...)) // the tail, and a last block for the end
	defer in.src.Reset(nil)
	if err := in.out.(flate.Resetter).Reset(&in.src, nil); err != nil {
		return nil, err
	}
	plain, err := io.ReadAll(io.LimitReader(in.out, int64(limit)+1))
	if len(plain) > limit {
		return nil, &violation{ws.StatusMessageTooBig, fmt.Sprintf("a message may have %d bytes", limit)}
	}
	if err != nil {
		return nil, &violation{ws.StatusInvalidFramePayloadData, "a message cannot be inflated"}
	}
	return plain, nil
}
