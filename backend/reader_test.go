package backend

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

const fuzzLimit = 300

// naive reads the whole input frame by frame, as the RFC tells it, and returns what a reader must report: messages and control
// frames, then "" or the close code of the violation.
func naive(input []byte, deflate bool) (events []string) {
	in := bytes.NewReader(input)
	var message []byte
	var op ws.OpCode
	var mark string
	for {
		rest := in.Len()
		h, err := ws.ReadHeader(in)
		if errors.Is(err, ws.ErrHeaderLengthMSB) {
			return append(events, "1002")
		}
		if err != nil {
			return events
		}
		if at := len(input) - rest + 1; input[at]&127 == 126 && h.Length < 126 || input[at]&127 == 127 && h.Length < 65536 {
			return append(events, "1002")
		}
		control := h.OpCode&8 != 0
		deflated := deflate && h.Rsv == 4 && (h.OpCode == 1 || h.OpCode == 2)
		if deflated {
			h.Rsv = 0
		}
		switch {
		case h.Rsv != 0, !h.Masked, h.OpCode > 2 && h.OpCode < 8, h.OpCode > 10,
			control && (!h.Fin || h.Length > 125),
			!control && (h.OpCode == 0) != (message != nil):
			return append(events, "1002")
		case !control && h.Length > int64(fuzzLimit-len(message)):
			return append(events, "1009")
		}
		in.Reset(input[len(input)-rest:])
		f, err := ws.ReadFrame(in)
		if err != nil {
			return events
		}
		f = ws.UnmaskFrame(f) // a copy: input stays as it is
		if control {
			events = append(events, fmt.Sprintf("%d %q", h.OpCode, f.Payload))
			continue
		}
		if h.OpCode != 0 {
			op, message, mark = h.OpCode, []byte{}, ""
			if deflated {
				mark = "z"
			}
		}
		message = append(message, f.Payload...)
		if op == ws.OpText && mark == "" && !canBeText(message) {
			return append(events, "1007")
		}
		if !h.Fin {
			continue
		}
		if op == ws.OpText && mark == "" && !utf8.Valid(message) {
			return append(events, "1007")
		}
		events = append(events, fmt.Sprintf("%d%s %q", op, mark, message))
		message = nil
	}
}

// canBeText tells whether something could follow that makes UTF-8 of begin: it tries.
func canBeText(begin []byte) bool {
	tails := []string{""}
	for range utf8.UTFMax {
		for _, tail := range tails {
			if utf8.ValidString(string(begin) + tail) {
				return true
			}
		}
		var longer []string
		for _, tail := range tails {
			for _, b := range []string{"\x80", "\x90", "\xa0", "\xbf"} {
				longer = append(longer, tail+b)
			}
		}
		tails = longer
	}
	return false
}

// chunked feeds input in chunks whose sizes seed decides.
func chunked(input []byte, deflate bool, cut func(left int) int) (events []string, r *reader) {
	r = &reader{}
	for len(input) > 0 {
		n := cut(len(input))
		chunk := slices.Clone(input[:n])
		input = input[n:]
		err := r.feed(chunk, terms{fuzzLimit, deflate}, func(op ws.OpCode, payload []byte, deflated bool) error {
			mark := ""
			if deflated {
				mark = "z"
			}
			events = append(events, fmt.Sprintf("%d%s %q", op, mark, payload))
			return nil
		})
		clear(chunk) // it is the loop's scratch buffer: nothing may point into it
		var broken *violation
		if errors.As(err, &broken) {
			return append(events, fmt.Sprint(int(broken.code))), r
		}
	}
	return events, r
}

func FuzzReader(f *testing.F) {
	mask := [4]byte{1, 2, 3, 4}
	frame := func(fin bool, op ws.OpCode, payload string) []byte {
		return ws.MustCompileFrame(ws.MaskFrameWith(ws.NewFrame(op, fin, []byte(payload)), mask))
	}
	rsv := func(fin bool, rsv byte, op ws.OpCode, payload string) []byte {
		h := ws.NewFrame(op, fin, []byte(payload))
		h.Header.Rsv = rsv
		return ws.MustCompileFrame(ws.MaskFrameWith(h, mask))
	}
	long := string(bytes.Repeat([]byte("k"), 280))
	for i, seed := range [][][]byte{
		{frame(true, ws.OpText, "hello"), frame(true, ws.OpBinary, "\x00\x01"), frame(true, ws.OpClose, "\x03\xe8bye")},
		{frame(false, ws.OpText, "\xce"), frame(true, ws.OpPing, "between"), frame(false, 0, ""), frame(true, 0, "\xba"), frame(true, ws.OpText, "")},
		{frame(true, ws.OpText, long), frame(true, ws.OpText, long), frame(true, ws.OpPong, long[:125])},
		{frame(false, ws.OpText, long), frame(true, 0, long)},
		{frame(false, ws.OpText, "\xf4\x8f"), frame(false, 0, "\xbf"), frame(true, 0, "\xbf")}, {frame(false, ws.OpText, "\xf4"), frame(false, 0, "\x90")},
		{frame(false, ws.OpText, "a\xed\xa0"), frame(true, 0, "\x80")}, {frame(false, ws.OpText, "\x80")}, {frame(false, ws.OpText, "\xe1\x80"), frame(true, 0, "")},
		{frame(true, ws.OpText, "ok"), frame(true, ws.OpText, "\xff\xfe")},
		{frame(true, ws.OpText, "ok"), ws.MustCompileFrame(ws.NewTextFrame([]byte("unmasked")))},
		{frame(true, ws.OpPing, long[:126])}, {frame(true, 0, "of nothing")}, {frame(true, 5, "")}, {frame(false, ws.OpPing, "")},
		{frame(false, ws.OpBinary, "a"), frame(true, ws.OpBinary, "b")},
		{rsv(true, 4, ws.OpText, "\xff"), rsv(false, 4, ws.OpBinary, "a"), frame(true, ws.OpPing, ""), frame(true, 0, "\xff"), frame(true, ws.OpText, "\xff")},
		{rsv(true, 4, ws.OpPing, "")}, {frame(false, ws.OpText, "a"), rsv(true, 4, 0, "b")}, {rsv(true, 6, ws.OpText, "a")}, {rsv(true, 1, ws.OpText, "a")},
		{{0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}}, {{0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}}, {{0x82, 0xfe, 0, 1, 9, 9, 9, 9, 9}}, {{0x82, 0xfe, 0, 126, 9, 9, 9, 9, 9}},
	} {
		f.Add(bytes.Join(seed, nil), uint64(i), i%2 == 0)
		f.Add(bytes.Join(seed, nil), uint64(i), i%2 == 1)
	}
	f.Fuzz(func(t *testing.T, input []byte, seed uint64, deflate bool) {
		want := naive(input, deflate)
		random := rand.New(rand.NewPCG(seed, 0))
		for name, cut := range map[string]func(left int) int{
			"whole":  func(left int) int { return left },
			"bytes":  func(int) int { return 1 },
			"random": func(left int) int { return 1 + random.IntN(left) },
		} {
			got, r := chunked(input, deflate, cut)
			if !slices.Equal(got, want) {
				t.Fatalf("%s: got %q, want %q", name, got, want)
			}
			failed := len(want) > 0 && len(want[len(want)-1]) == 4 // a code: the session ends, and the buffers with it
			if u := r.begun; u != nil && !failed && (len(u.rest) > fuzzLimit+ws.MaxHeaderSize || len(u.whole) > fuzzLimit) {
				t.Fatalf("%s: holds %d and %d bytes, limit %d", name, len(u.rest), len(u.whole), fuzzLimit)
			}
		}
	})
}

// Two chunks, cut at every byte: each cut leaves the same messages, and no buffer behind the last.
func TestReaderCutAnywhere(t *testing.T) {
	var input []byte
	for _, payload := range []string{"", "a", string(bytes.Repeat([]byte("b"), 130)), "κόσμε"} {
		frame := ws.NewTextFrame([]byte(payload))
		input = append(input, ws.MustCompileFrame(ws.MaskFrameInPlace(frame))...)
	}
	want := naive(input, false)
	for at := 1; at < len(input); at++ {
		first := true
		got, r := chunked(input, false, func(left int) int {
			if first {
				first = false
				return at
			}
			return left
		})
		if !slices.Equal(got, want) {
			t.Fatalf("cut at %d: %q, want %q", at, got, want)
		}
		if r.begun != nil {
			t.Fatalf("cut at %d: keeps a buffer between messages", at)
		}
	}
	if len(want) != 4 {
		t.Fatalf("the reference found %q", want)
	}
}

// What the handler returns ends the feeding at once.
func TestReaderStopsWhereToldTo(t *testing.T) {
	two := append(ws.MustCompileFrame(ws.MaskFrame(ws.NewTextFrame([]byte("1")))), ws.MustCompileFrame(ws.MaskFrame(ws.NewTextFrame([]byte("2"))))...)
	calls := 0
	r := &reader{}
	err := r.feed(two, terms{limit: fuzzLimit}, func(ws.OpCode, []byte, bool) error { calls++; return io.EOF })
	if calls != 1 || !errors.Is(err, io.EOF) {
		t.Fatalf("%d calls, %v", calls, err)
	}
}
