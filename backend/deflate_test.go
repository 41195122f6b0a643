package backend

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsflate"
)

// Both ways against the library's own, naive and slow.
func TestDeflateAgainstReference(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, deflateFrom - 1, deflateFrom, 200, 65_535, 65_536, 300_000} {
		payload := make([]byte, size)
		for i := range payload {
			payload[i] = 'a' + byte(random.IntN(4))
		}
		plain := Message{Data: payload, Binary: true}.frame()
		f, err := ws.ReadFrame(bytes.NewReader(deflateFrame(plain)))
		if err != nil {
			t.Fatal(err)
		}
		if compressed, err := wsflate.IsCompressed(f.Header); compressed != (size >= deflateFrom) || err != nil {
			t.Errorf("%d bytes: compressed %v, %v", size, compressed, err)
		}
		if size >= deflateFrom && len(f.Payload) > size/2 {
			t.Errorf("%d bytes become %d", size, len(f.Payload))
		}
		if f, err = wsflate.DecompressFrame(f); err != nil || !bytes.Equal(f.Payload, payload) || f.Header.OpCode != ws.OpBinary {
			t.Errorf("%d bytes: do not come back: %v", size, err)
		}
		packed, err := wsflate.DefaultHelper.Compress(payload)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := inflate(packed, size); err != nil || !bytes.Equal(got, payload) {
			t.Errorf("%d bytes: inflated to %d, %v", size, len(got), err)
		}
		if size > 0 {
			wantViolation(t, packed, size-1, ws.StatusMessageTooBig)
		}
	}
}

func wantViolation(t *testing.T, data []byte, limit int, code ws.StatusCode) {
	t.Helper()
	var broken *violation
	if _, err := inflate(bytes.Clone(data), limit); !errors.As(err, &broken) || broken.code != code {
		t.Errorf("%d bytes, limit %d: %v, want %d", len(data), limit, err, code)
	}
}

func TestNoiseStaysPlain(t *testing.T) {
	noise := make([]byte, 1000)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	for name, frame := range map[string][]byte{
		"noise": Message{Data: noise, Binary: true}.frame(),
		"ping":  ws.MustCompileFrame(ws.NewPingFrame(bytes.Repeat([]byte("p"), 125))),
		"close": Kicked.frame(0, strings.Repeat("k", 123)),
	} {
		if got := deflateFrame(frame); &got[0] != &frame[0] {
			t.Errorf("%s: %d bytes became %d", name, len(frame), len(got))
		}
	}
}

// One deflated frame serves all sessions.
func TestDeflatedOnce(t *testing.T) {
	one, other := Text(strings.Repeat("one ", 100)).frame(), Text(strings.Repeat("other ", 100)).frame()
	first := sharedDeflate(one)
	if again := sharedDeflate(one); &first[0] != &again[0] {
		t.Error("the second session gets a frame of its own")
	}
	if different := sharedDeflate(other); bytes.Equal(first, different) {
		t.Error("another message gets the first one's frame")
	}
	if allocs := testing.AllocsPerRun(100, func() { sharedDeflate(other) }); allocs > 0 {
		t.Errorf("%v allocations for each further session", allocs)
	}
}

// A bomb costs as much as the largest message, whatever it would become.
func TestZipBomb(t *testing.T) {
	const limit = 64 << 10
	bomb, err := wsflate.DefaultHelper.Compress(make([]byte, 8<<20))
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	wantViolation(t, bomb, limit, ws.StatusMessageTooBig)
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 8*limit+2*uint64(len(bomb)) {
		t.Errorf("%d bytes were allocated for a message of at most %d", took, limit)
	}
}

func TestInflateGarbage(t *testing.T) {
	packed, err := wsflate.DefaultHelper.Compress(bytes.Repeat([]byte("selvedge "), 100))
	if err != nil {
		t.Fatal(err)
	}
	wantViolation(t, packed[:len(packed)-3], 1000, ws.StatusInvalidFramePayloadData)
	wantViolation(t, []byte{0xff, 0xff, 0xff}, 1000, ws.StatusInvalidFramePayloadData)
	if got, err := inflate([]byte{0}, 1000); len(got) != 0 || err != nil { // RFC 7692, 7.2.3.6: an empty message
		t.Errorf("empty: %q, %v", got, err)
	}
	// RFC 7692, 7.2.3.1 and 7.2.3.4: as other ends may write it.
	for name, data := range map[string][]byte{
		"one block":     {0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00},
		"no compressed": {0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00},
		"last block":    {0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00},
		"two blocks":    {0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00},
	} {
		if got, err := inflate(data, 5); string(got) != "Hello" || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func FuzzInflate(f *testing.F) {
	for _, text := range []string{"", "a", strings.Repeat("ab", 1000)} {
		packed, _ := wsflate.DefaultHelper.Compress([]byte(text))
		f.Add(packed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		const limit = 1000
		got, err := inflate(bytes.Clone(data), limit)
		want, wantErr := wsflate.DefaultHelper.Decompress(data)
		if len(want) > limit {
			var broken *violation
			if !errors.As(err, &broken) || broken.code != ws.StatusMessageTooBig {
				t.Fatalf("%d bytes of %d: %v", len(want), limit, err)
			}
			return
		}
		if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got, want) {
			t.Fatalf("%q, %v; the reference: %q, %v", got, err, want, wantErr)
		}
	})
}

func BenchmarkDeflate(b *testing.B) {
	frame := Text(strings.Repeat(`{"from":"alice","to":"bob","text":"hi"}`, 26)).frame() // 1 KB
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for range b.N {
		deflateFrame(frame)
	}
}
