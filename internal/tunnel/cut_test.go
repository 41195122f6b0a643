//go:build unix

package tunnel

import (
	"io"
	"sync"
	"testing"
	"time"
)

// TestCutIsNoReset cuts while both peers are sending: what the tunnel had taken arrives, and then an end of stream, not a
// reset.
func TestCutIsNoReset(t *testing.T) {
	inEachMode(t, 1, Config{}, func(t *testing.T, r *rig) {
		j := r.join(t, early{})
		say(t, j.backend, "taken")
		expect(t, j.client, "taken")
		j.tunnel.Close(Drained)
		j.tunnel.Close(Moved) // too late: the first reason counts
		for range 10 {
			_, _ = j.client.Write(make([]byte, 10<<10)) // nobody gets this, and it must not hurt what is on its way
		}
		expectError(t, j.client, io.EOF)
		expectError(t, j.backend, io.EOF)
		if len(j.closed) > 0 {
			t.Error("ended before the peers have")
		}
		if s := j.end(t); s.Reason != Drained || s.Err != nil {
			t.Errorf("ended with %v, %v", s.Reason, s.Err)
		}
		j.tunnel.Close(Drained) // does nothing
	})
}

// TestCutDeliversWhatWasTaken cuts with bytes on their way to a slow client that has itself sent something: closing with
// that unread would be a reset, and would destroy them.
func TestCutDeliversWhatWasTaken(t *testing.T) {
	inEachMode(t, 1, Config{}, func(t *testing.T, r *rig) {
		if r.tls[backend] {
			return // see fill
		}
		j := r.join(t, early{})
		_ = j.client.SetReadBuffer(32 << 10)
		sent := fill(t, j.backend)
		say(t, j.client, "unread")
		j.tunnel.Close(Drained)
		say(t, j.client, "and more")
		_ = j.backend.CloseWrite()
		_ = j.client.CloseWrite()
		_ = j.client.SetReadDeadline(time.Now().Add(patience))
		n, err := io.Copy(io.Discard, j.client)
		_ = j.backend.Close()
		_ = j.client.Close()
		if s := receive(t, j.closed); err != nil || n != s.ToClient || n == 0 || n > int64(sent) {
			t.Errorf("the client got %d bytes, %v; the tunnel wrote %d of %d", n, err, s.ToClient, sent)
		}
	})
}

func TestCutDoesNotWaitForEver(t *testing.T) {
	inMode(t, plain, 1, Config{}, func(t *testing.T, r *rig) { // for goroutines: TestPumpBlockedInWriteIsCut
		j := r.join(t, early{})
		fill(t, j.backend) // and the client does not read
		began := time.Now()
		j.tunnel.Close(Expired)
		if s := receive(t, j.closed); s.Reason != Expired {
			t.Errorf("ended with %v, %v", s.Reason, s.Err)
		}
		if took := time.Since(began); took < lingerTime || took > lingerTime+5*time.Second {
			t.Errorf("took %v, want %v", took, lingerTime)
		}
		j.client.Close()
		j.backend.Close()
	})
}

func TestIdleTimeout(t *testing.T) {
	const timeout = 400 * time.Millisecond
	inEachMode(t, 1, Config{IdleTimeout: timeout}, func(t *testing.T, r *rig) {
		idle, busy := r.join(t, early{}), r.join(t, early{})
		began := time.Now()
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			ticker := time.NewTicker(timeout / 10)
			defer ticker.Stop()
			for {
				select {
				case <-stop:
					return
				case <-ticker.C:
					say(t, busy.client, "x")
				}
			}
		})
		expectError(t, idle.client, io.EOF)
		if took := time.Since(began); took < timeout {
			t.Errorf("cut after %v, want %v at least", took, timeout)
		}
		eventually(t, "twice the timeout", func() bool { return time.Since(began) > 2*timeout })
		if s := idle.end(t); s.Reason != IdleTimeout {
			t.Errorf("ended with %v, %v", s.Reason, s.Err)
		}
		close(stop)
		wg.Wait()
		if len(busy.closed) > 0 {
			t.Error("the busy one was cut")
		}
		busy.end(t)
	})
}
