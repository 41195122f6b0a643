package backend

import (
	"bytes"
	"testing"

	"github.com/gobwas/ws"
)

// Our frames are those that gobwas/ws makes, at each border of the lengths' forms.
func TestFrame(t *testing.T) {
	for _, size := range []int{0, 1, 125, 126, 127, 1<<16 - 1, 1 << 16, 1<<16 + 1} {
		for _, binary := range []bool{false, true} {
			m := Message{Data: bytes.Repeat([]byte("x"), size), Binary: binary}
			if want := ws.MustCompileFrame(ws.NewFrame(m.opcode(), true, m.Data)); !bytes.Equal(m.frame(), want) {
				t.Errorf("%d bytes, binary %v: %x...", size, binary, m.frame()[:min(size, 12)])
			}
		}
	}
}
