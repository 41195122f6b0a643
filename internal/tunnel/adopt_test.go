//go:build unix

package tunnel

import (
	"io"
	"testing"

	"github.com/selvedge/selvedge/internal/reactor"
)

// What comes to a relay that has been closed is closed, its registrations too.
func TestJoinOnAfterClose(t *testing.T) {
	inMode(t, mode{reactor: reactor.New, adopted: true}, 1, Config{}, func(t *testing.T, r *rig) {
		if err := r.relay.Close(); err != nil {
			t.Fatal(err)
		}
		farClient, nearClient := tcpConns(t)
		farBackend, nearBackend := tcpConns(t)
		if _, err := r.joinOnLoop(t, nearClient, nearBackend, early{}, func(Summary) { t.Error("onClose was called") }); err != ErrClosed {
			t.Errorf("JoinOn: %v", err)
		}
		for _, far := range []io.ReadCloser{farClient, farBackend} {
			if n, err := far.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("read %d, %v; want the end", n, err)
			}
			_ = far.Close()
		}
	})
}
