package bench

import (
	"bytes"
	"testing"

	"github.com/gobwas/ws"
)

// Frames come out whole however the bytes come in.
func TestFeedInPieces(t *testing.T) {
	var stream []byte
	const n = 5
	for seq := range uint32(n) {
		frame, err := ws.CompileFrame(ws.NewBinaryFrame(stamp{phase: 1, seq: seq, user: 2}.encode()))
		if err != nil {
			t.Fatal(err)
		}
		stream = append(stream, frame...)
	}
	for size := 1; size <= len(stream); size++ {
		h := new(holder)
		h.tally.begin(1)
		s := &session{holder: h, user: 2}
		for rest := stream; len(rest) > 0; {
			piece := bytes.Clone(rest[:min(size, len(rest))])
			s.feed(piece)
			clear(piece) // it is the caller's again
			rest = rest[min(size, len(rest)):]
		}
		if err := h.tally.check(n); err != nil || s.rest != nil {
			t.Fatalf("in pieces of %d bytes: %v, %d bytes left", size, err, len(s.rest))
		}
	}
}

func TestParseFrame(t *testing.T) {
	for _, c := range []struct {
		name string
		data []byte
		size int
		bad  bool
	}{
		{"nothing", nil, 0, false},
		{"half a head", []byte{0x82}, 0, false},
		{"half a length", []byte{0x82, 126, 0}, 0, false},
		{"empty", []byte{0x82, 0}, 2, false},
		{"two bytes, and more behind", []byte{0x82, 2, 'h', 'i', 0x82}, 4, false},
		{"fragment", []byte{0x02, 0}, 0, true},
		{"extension", []byte{0xc2, 0}, 0, true},
		{"masked", []byte{0x82, 0x80, 0, 0, 0, 0}, 0, true},
		{"huge", []byte{0x82, 127}, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, size, err := parseFrame(c.data)
			if size != c.size || (err != nil) != c.bad {
				t.Errorf("size %d, error %v", size, err)
			}
		})
	}
}

func FuzzParseFrame(f *testing.F) {
	f.Add([]byte{0x82, 2, 'h', 'i'})
	f.Add([]byte{0x82, 126, 0, 1, 'x'})
	f.Fuzz(func(t *testing.T, data []byte) {
		_, payload, size, err := parseFrame(data)
		if size > len(data) || len(payload) > size || err != nil && size != 0 {
			t.Errorf("size %d, payload of %d, %v of %d bytes", size, len(payload), err, len(data))
		}
	})
}
