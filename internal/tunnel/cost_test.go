//go:build unix

package tunnel

import (
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/selvedge/selvedge/internal/reactor"
)

// heap returns the bytes of live heap.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // the first one leaves what pools held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestSizeOfTunnel(t *testing.T) {
	if n := unsafe.Sizeof(Tunnel{}); n > 160 {
		t.Errorf("a Tunnel has %d bytes; the package comment counts on the size class of 160", n)
	}
}

// TestManyTunnels opens 2,000 tunnels, weighs them while they are idle, uses each and ends them in different ways.
func TestManyTunnels(t *testing.T) {
	inMode(t, modes[0], 2, Config{}, func(t *testing.T, r *rig) {
		const n = 2000
		type conns struct{ farClient, nearClient, farBackend, nearBackend *net.TCPConn }
		all, tunnels := make([]conns, n), make([]*Tunnel, n)
		for i := range all {
			c := &all[i]
			c.farClient, c.nearClient = tcpConns(t)
			c.farBackend, c.nearBackend = tcpConns(t)
		}
		goroutines, before := runtime.NumGoroutine(), heap()
		for i, c := range all {
			var err error
			if tunnels[i], err = r.relay.Join(End{Conn: c.nearClient}, End{Conn: c.nearBackend}, nil); err != nil {
				t.Fatal(err)
			}
		}
		for i := range r.relay.shards { // until each has been through its first events
			for range 5 {
				r.onLoop(t, i, func(*shard) {})
			}
		}
		each := float64(int64(heap()-before)) / n
		t.Logf("%.1f bytes of heap per idle tunnel", each)
		if each > 400 { // 224 and the loops' own; much more means that something is kept while idle
			t.Errorf("%.1f bytes of heap per idle tunnel, aim 256", each)
		}
		if now := runtime.NumGoroutine(); now > goroutines {
			t.Errorf("%d goroutines more for %d tunnels", now-goroutines, n)
		}
		if r.relay.Len() != n || r.relay.pipes.Load() != 0 {
			t.Errorf("%d tunnels, %d pipes", r.relay.Len(), r.relay.pipes.Load())
		}
		runtime.KeepAlive(all)

		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				for i := w; i < n; i += 8 {
					c := &all[i]
					say(t, c.farClient, "ping")
					expect(t, c.farBackend, "ping")
					say(t, c.farBackend, "pong")
					expect(t, c.farClient, "pong")
					switch i % 4 {
					case 0:
						_ = c.farClient.SetLinger(0)
					case 1:
						tunnels[i].Close(Drained)
					case 2:
						_ = c.farBackend.CloseWrite()
					}
					_ = c.farClient.Close()
					_ = c.farBackend.Close()
				}
			})
		}
		wg.Wait()
		eventually(t, "all tunnels ended", func() bool { return r.relay.Len() == 0 })
	})
}

// TestBulkBesideChatter measures how long short messages take on a loop that also carries a stream at full speed.
func TestBulkBesideChatter(t *testing.T) {
	inEachMode(t, 1, Config{}, func(t *testing.T, r *rig) {
		bulk, chatty := r.join(t, early{}), r.join(t, early{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for chunk := make([]byte, 256<<10); ; {
				if _, err := bulk.backend.Write(chunk); err != nil {
					return
				}
			}
		})
		wg.Go(func() {
			for buf := make([]byte, 256<<10); ; {
				if _, err := bulk.client.Read(buf); err != nil {
					return
				}
			}
		})
		eventually(t, "the stream in full flow", func() bool {
			c := r.relay.Counters()
			return c.ToClientCopied+c.ToClientSpliced > 16<<20
		})
		took := make([]time.Duration, 300)
		for i := range took {
			began := time.Now()
			say(t, chatty.client, "ping")
			expect(t, chatty.backend, "ping")
			took[i] = time.Since(began)
		}
		slices.Sort(took)
		p50, p99 := took[len(took)/2], took[len(took)*99/100]
		c := r.relay.Counters()
		t.Logf("p50 %v, p99 %v; copied %d MB, spliced %d MB", p50, p99, c.ToClientCopied>>20, c.ToClientSpliced>>20)
		if p50 > 50*time.Millisecond { // the median: on a busy machine the p99 is the scheduler's
			t.Errorf("p50 %v beside a stream, want it below 50ms", p50)
		}
		if r.engine == Auto && !r.userland && r.tls == [2]bool{} && MaxPipes > 0 && c.ToClientSpliced < c.ToClientCopied {
			t.Errorf("%d bytes of a full-speed stream spliced, %d copied", c.ToClientSpliced, c.ToClientCopied)
		}
		bulk.end(t)
		wg.Wait()
		chatty.end(t)
	})
}

// TestBudget looks at one wake-up from the inside: with plenty in both sockets' queues it moves the budget, not all there is.
func TestBudget(t *testing.T) {
	for _, engine := range []Engine{Auto, Copy, Splice} {
		t.Run(engine.String(), func(t *testing.T) {
			inMode(t, mode{engine: engine, reactor: reactor.New}, 1, Config{}, func(t *testing.T, r *rig) {
				j := r.join(t, early{})
				for _, c := range []farEnd{j.client, j.backend} {
					_ = c.SetReadBuffer(8 << 20)
					_ = c.SetWriteBuffer(8 << 20)
				}
				release := make(chan struct{})
				r.relay.shards[0].loop.Post(func() { <-release }) // the loop waits, so that bytes gather
				fill(t, j.backend)
				var steps []int64
				var look func()
				look = func() { // one task per turn of the loop
					if moved := j.tunnel.flows[backend].moved; len(steps) == 0 || moved > steps[len(steps)-1] {
						steps = append(steps, moved)
					}
					if len(steps) < 4 && j.tunnel.state == moving {
						r.relay.shards[0].loop.Post(look)
					}
				}
				r.relay.shards[0].loop.Post(look)
				close(release)
				eventually(t, "bytes moved", func() (ok bool) {
					r.onLoop(t, 0, func(*shard) { ok = len(steps) > 1 })
					return ok
				})
				r.onLoop(t, 0, func(*shard) {
					for i := 1; i < len(steps); i++ {
						// A turn calls a handler that has an event and yields at most twice.
						if by := steps[i] - steps[i-1]; by > 2*(wakeBudget+bufferSize) {
							t.Errorf("%d bytes in one turn, the budget is %d a wake-up", by, wakeBudget)
						}
					}
				})
				j.client.Close()
				j.backend.Close()
				receive(t, j.closed)
			})
		})
	}
}
