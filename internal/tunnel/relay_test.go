//go:build unix

package tunnel

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/reactor"
)

// sendRandom writes size bytes in chunks of random sizes with pauses now and then, ends the stream and returns their hash.
func sendRandom(seed uint64, c farEnd, size int, prefix []byte) ([sha256.Size]byte, error) {
	rng := rand.New(rand.NewPCG(seed, 1))
	source := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	hash := sha256.New()
	hash.Write(prefix)
	buf := make([]byte, 200<<10)
	for size > 0 {
		chunk := buf[:min(size, 1+rng.IntN([]int{10, 2 << 10, len(buf)}[rng.IntN(3)]))]
		_, _ = source.Read(chunk)
		hash.Write(chunk)
		if _, err := c.Write(chunk); err != nil {
			return [sha256.Size]byte{}, err
		}
		size -= len(chunk)
		if rng.IntN(40) == 0 {
			time.Sleep(time.Duration(rng.IntN(1000)) * time.Microsecond) // a pause is part of the pattern; nothing waits for it
		}
	}
	return [sha256.Size]byte(hash.Sum(nil)), c.CloseWrite()
}

// receiveAll hashes what comes until the end of the stream, reading in random sizes.
func receiveAll(seed uint64, c farEnd) ([sha256.Size]byte, int, error) {
	rng := rand.New(rand.NewPCG(seed, 2))
	hash, buf, total := sha256.New(), make([]byte, 256<<10), 0
	for {
		n, err := c.Read(buf[:1+rng.IntN(len(buf))])
		hash.Write(buf[:n])
		total += n
		if err == io.EOF {
			return [sha256.Size]byte(hash.Sum(nil)), total, nil
		}
		if err != nil {
			return [sha256.Size]byte{}, total, err
		}
	}
}

// exchange sends random streams both ways through a tunnel and checks every byte by hash, and the summary.
func exchange(t *testing.T, r *rig, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 3))
	size := func() int { return rng.IntN([]int{1, 1 << 10, 1 << 20, 3 << 20}[rng.IntN(4)]) }
	e := early{bytes.Repeat([]byte("c"), rng.IntN(3000)), bytes.Repeat([]byte("b"), rng.IntN(3000))}
	j := r.join(t, e)
	_ = j.client.SetDeadline(time.Now().Add(patience))
	_ = j.backend.SetDeadline(time.Now().Add(patience))

	toBackend, toClient := size(), size()
	var wg sync.WaitGroup
	direction := func(name string, from, to farEnd, size int, prefix []byte, seed uint64) {
		sent := make(chan [sha256.Size]byte, 1)
		wg.Go(func() {
			hash, err := sendRandom(seed, from, size, prefix)
			if err != nil {
				t.Errorf("seed %d, %s: send: %v", seed, name, err)
			}
			sent <- hash
		})
		wg.Go(func() {
			hash, n, err := receiveAll(seed, to)
			if want := <-sent; err != nil || hash != want {
				t.Errorf("seed %d, %s: %d of %d bytes, the same: %v, %v", seed, name, n, size+len(prefix), hash == want, err)
			}
		})
	}
	direction("to backend", j.client, j.backend, toBackend, e.fromClient, seed*2)
	direction("to client", j.backend, j.client, toClient, e.fromBackend, seed*2+1)
	wg.Wait()
	s := j.end(t)
	if s.Reason != ClientClosed && s.Reason != BackendClosed || s.Err != nil {
		t.Errorf("seed %d: ended with %v, %v", seed, s.Reason, s.Err)
	}
	if want := int64(toBackend + len(e.fromClient)); s.ToBackend != want {
		t.Errorf("seed %d: %d bytes to the backend, want %d", seed, s.ToBackend, want)
	}
	if want := int64(toClient + len(e.fromBackend)); s.ToClient != want {
		t.Errorf("seed %d: %d bytes to the client, want %d", seed, s.ToClient, want)
	}
}

func TestEveryByteBothWays(t *testing.T) {
	inEachMode(t, 2, Config{}, func(t *testing.T, r *rig) {
		const tunnels, atOnce = 48, 16
		places := make(chan struct{}, atOnce)
		var wg sync.WaitGroup
		for i := range tunnels {
			wg.Go(func() {
				places <- struct{}{}
				exchange(t, r, uint64(i))
				<-places
			})
		}
		wg.Wait()
		c := r.relay.Counters()
		t.Logf("%+v", c)
		if r.engine == Copy && c.ToBackendSpliced+c.ToClientSpliced > 0 {
			t.Error("the engine copy has spliced")
		}
		if r.engine == Splice && MaxPipes > 0 && c.ToBackendSpliced <= c.ToBackendCopied {
			t.Error("the engine splice has copied most")
		}
	})
}

// sideways runs a test in each mode and from each side: near is the side that acts.
func sideways(t *testing.T, test func(t *testing.T, r *rig, near side, ends func(*joined) (near, far farEnd))) {
	inEachMode(t, 1, Config{}, func(t *testing.T, r *rig) {
		t.Run("client", func(t *testing.T) {
			test(t, r, client, func(j *joined) (_, _ farEnd) { return j.client, j.backend })
		})
		t.Run("backend", func(t *testing.T) {
			test(t, r, backend, func(j *joined) (_, _ farEnd) { return j.backend, j.client })
		})
	})
}

func TestHalfClose(t *testing.T) {
	sideways(t, func(t *testing.T, r *rig, acts side, ends func(*joined) (near, far farEnd)) {
		j := r.join(t, early{})
		near, far := ends(j)
		say(t, near, "the last word")
		_ = near.CloseWrite()
		expect(t, far, "the last word")
		expectError(t, far, io.EOF)
		for range 3 { // the other direction goes on
			say(t, far, "more")
			expect(t, near, "more")
		}
		_ = far.Close()
		expectError(t, near, io.EOF)
		if s := receive(t, j.closed); s.Reason != ClientClosed+Reason(acts) || s.Err != nil {
			t.Errorf("ended with %v, %v", s.Reason, s.Err)
		}
		_ = near.Close()
	})
}

func TestReset(t *testing.T) {
	sideways(t, func(t *testing.T, r *rig, acts side, ends func(*joined) (near, far farEnd)) {
		j := r.join(t, early{})
		near, far := ends(j)
		say(t, near, "before")
		expect(t, far, "before")
		_ = near.SetLinger(0)
		_ = near.Close()
		expectError(t, far, syscall.ECONNRESET)
		if s := j.end(t); s.Reason != ClientReset+Reason(acts) || !errors.Is(s.Err, syscall.ECONNRESET) {
			t.Errorf("ended with %v, %v", s.Reason, s.Err)
		}
	})
}

// TestResetWhileBlocked resets a sender whom nobody reads because the receiver is stuck: the reset must not wait for room.
func TestResetWhileBlocked(t *testing.T) {
	sideways(t, func(t *testing.T, r *rig, acts side, ends func(*joined) (near, far farEnd)) {
		if r.userland {
			t.Skip("a goroutine that waits in Write for one end does not watch the other; keepalive and the user timeout do")
		}
		if r.tls[acts] {
			t.Skip("see fill")
		}
		j := r.join(t, early{})
		near, _ := ends(j)
		fill(t, near)
		_ = near.SetLinger(0)
		_ = near.Close()
		if s := receive(t, j.closed); s.Reason != ClientReset+Reason(acts) {
			t.Errorf("ended with %v, %v", s.Reason, s.Err)
		}
		j.client.Close()
		j.backend.Close()
		exchange(t, r, 5) // the bytes that were stuck are nobody else's
	})
}

// fill writes until nothing has been taken for a while, and returns how much was. It is not for ends with TLS, which do not survive a write
// that is given up.
func fill(t testing.TB, c farEnd) int {
	t.Helper()
	source := rand.NewChaCha8([32]byte{42})
	chunk, total := make([]byte, 64<<10), 0
	for {
		_, _ = source.Read(chunk)
		_ = c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		n, err := c.Write(chunk)
		total += n
		if err != nil {
			_ = c.SetWriteDeadline(time.Time{})
			return total
		}
	}
}

func TestSlowReader(t *testing.T) {
	inEachMode(t, 1, Config{}, func(t *testing.T, r *rig) {
		if r.tls[backend] {
			return // see fill; with TLS on the other side it is the same
		}
		j, chatty := r.join(t, early{}), r.join(t, early{})
		before := heap()
		sent := fill(t, j.backend) // returns because the tunnel has stopped reading
		if grown := int64(heap() - before); grown > 512<<10 {
			t.Errorf("heap has grown by %d bytes for a reader that has stopped", grown)
		}
		if n := r.relay.pipes.Load(); n > 2 {
			t.Errorf("%d pipes for one slow reader", n)
		}
		for range 20 { // nobody else feels it
			say(t, chatty.client, "ping")
			expect(t, chatty.backend, "ping")
		}
		if c := r.relay.Counters(); c.ToClientCopied+c.ToClientSpliced > uint64(sent) {
			t.Errorf("%+v moved, %d sent", c, sent)
		}
		_ = j.backend.CloseWrite()
		hash := sha256.New()
		_ = j.client.SetReadDeadline(time.Now().Add(patience))
		n, err := io.Copy(hash, j.client)
		want := make([]byte, sent)
		source := rand.NewChaCha8([32]byte{42})
		for at := 0; at < sent; at += 64 << 10 {
			chunk := make([]byte, 64<<10) // as fill drew them
			_, _ = source.Read(chunk)
			copy(want[at:], chunk)
		}
		if sum := sha256.Sum256(want); err != nil || n != int64(sent) || !bytes.Equal(hash.Sum(nil), sum[:]) {
			t.Errorf("%d of %d bytes arrived, %v, the same: %v", n, sent, err, bytes.Equal(hash.Sum(nil), sum[:]))
		}
		j.end(t)
		chatty.end(t)
	})
}

func TestEarlyBytesBeyondSocketBuffers(t *testing.T) {
	inEachMode(t, 1, Config{}, func(t *testing.T, r *rig) {
		c, b := make([]byte, 12<<20), make([]byte, 12<<20)
		_, _ = rand.NewChaCha8([32]byte{1}).Read(c)
		_, _ = rand.NewChaCha8([32]byte{2}).Read(b)
		j := r.join(t, early{fromClient: c, fromBackend: b})
		chatty := r.join(t, early{})
		say(t, chatty.client, "ping") // the loop is not stuck in writing them
		expect(t, chatty.backend, "ping")
		chatty.end(t)

		say(t, j.client, "later")
		say(t, j.backend, "later")
		for _, end := range []struct {
			conn farEnd
			want []byte
		}{{j.client, b}, {j.backend, c}} {
			got := make([]byte, len(end.want))
			_ = end.conn.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.ReadFull(end.conn, got); err != nil || !bytes.Equal(got, end.want) {
				t.Fatalf("early bytes: %v, the same: %v", err, bytes.Equal(got, end.want))
			}
			expect(t, end.conn, "later")
		}
		j.end(t)
	})
}

func TestRelayClose(t *testing.T) {
	inEachMode(t, 2, Config{}, func(t *testing.T, r *rig) {
		var all []*joined
		for range 20 {
			all = append(all, r.join(t, early{}))
		}
		var wg sync.WaitGroup
		for _, j := range all {
			wg.Go(func() { // peers that behave
				expectError(t, j.client, io.EOF)
				_ = j.client.Close()
			})
			wg.Go(func() {
				expectError(t, j.backend, io.EOF)
				_ = j.backend.Close()
			})
		}
		began := time.Now()
		if err := r.relay.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took >= lingerTime {
			t.Errorf("took %v with peers that behave", took)
		}
		wg.Wait()
		for _, j := range all {
			if s := receive(t, j.closed); s.Reason != Shutdown || len(j.closed) > 0 {
				t.Errorf("ended with %v, and %d times more", s.Reason, len(j.closed))
			}
		}

		farClient, nearClient := tcpConns(t)
		farBackend, nearBackend := tcpConns(t)
		_, err := r.relay.Join(End{Conn: r.dress(nearClient)}, End{Conn: nearBackend},
			func(Summary) { t.Error("onClose of a failed Join") })
		if !errors.Is(err, ErrClosed) {
			t.Errorf("Join after Close: %v", err)
		}
		expectError(t, farClient, io.EOF)
		expectError(t, farBackend, io.EOF)
		_ = farClient.Close()
		_ = farBackend.Close()
	})
}

func TestReactorClosedFirst(t *testing.T) {
	descriptors := openDescriptors(t)
	re, err := reactor.New(2)
	if err != nil {
		t.Fatal(err)
	}
	relay, err := NewRelay(Config{Reactor: re})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{relay: relay}
	j := r.join(t, early{})
	say(t, j.client, "x")
	expect(t, j.backend, "x")
	_ = re.Close()
	late := r.join(t, early{})
	_ = relay.Close()
	for _, j := range []*joined{j, late} {
		if s := j.end(t); s.Reason != Shutdown {
			t.Errorf("ended with %v", s.Reason)
		}
	}
	eventually(t, "descriptors back to the start", func() bool { return openDescriptors(t) == descriptors })
}

func TestJoinRacesWithClose(t *testing.T) {
	inEachMode(t, 2, Config{}, func(t *testing.T, r *rig) {
		var wg sync.WaitGroup
		results := make(chan Summary, 100)
		accepted := 0
		var mu sync.Mutex
		start := make(chan struct{})
		for range 40 {
			farClient, nearClient := tcpConns(t)
			farBackend, nearBackend := tcpConns(t)
			wg.Go(func() {
				<-start
				_, err := r.relay.Join(End{Conn: r.dress(nearClient)}, End{Conn: nearBackend}, func(s Summary) { results <- s })
				if err == nil {
					mu.Lock()
					accepted++
					mu.Unlock()
				}
				_ = farClient.Close()
				_ = farBackend.Close()
			})
		}
		wg.Go(func() { <-start; _ = r.relay.Close() })
		close(start)
		wg.Wait()
		_ = r.relay.Close()
		if len(results) != accepted {
			t.Errorf("%d of %d tunnels have said that they ended", len(results), accepted)
		}
	})
}

// TestAdmittedAfterClose is the other order of the race above: Join has been let in, and its tunnel reaches the loop after
// Close has been there.
func TestAdmittedAfterClose(t *testing.T) {
	inMode(t, plain, 1, Config{}, func(t *testing.T, r *rig) {
		farClient, nearClient := tcpConns(t)
		farBackend, nearBackend := tcpConns(t)
		closed := make(chan Summary, 1)
		tunnel := &Tunnel{onClose: func(s Summary) { closed <- s }}
		if err := r.relay.enter(tunnel, nil); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { _ = r.relay.Close(); close(done) }()
		eventually(t, "Close has cut what there is", func() (ok bool) {
			r.onLoop(t, 0, func(s *shard) { ok = s.closed })
			return ok
		})
		var fds [2]int
		for i, c := range []net.Conn{nearClient, nearBackend} {
			fd, err := reactor.Detach(c)
			if err != nil {
				t.Fatal(err)
			}
			fds[i] = fd
		}
		tunnel.init(fds[0], fds[1], nil, nil)
		tunnel.shard = r.relay.shards[0]
		tunnel.shard.admit(tunnel)
		expectError(t, farClient, io.EOF)
		expectError(t, farBackend, io.EOF)
		_ = farClient.Close()
		_ = farBackend.Close()
		if s := receive(t, closed); s.Reason != Shutdown {
			t.Errorf("ended with %v", s.Reason)
		}
		receive(t, done)
	})
}

func TestConfigIsChecked(t *testing.T) {
	re, err := reactor.New(1)
	if err != nil {
		t.Fatal(err)
	}
	defer re.Close()
	for name, cfg := range map[string]Config{
		"no reactor":   {},
		"bad engine":   {Reactor: re, Engine: 7},
		"negative":     {Reactor: re, IdleTimeout: -1},
		"negative too": {Reactor: re, IdleTimeout: -time.Hour},
	} {
		if _, err := NewRelay(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestNames(t *testing.T) {
	for _, e := range []Engine{Auto, Copy, Splice} {
		if got, err := ParseEngine(e.String()); got != e || err != nil {
			t.Errorf("%v parsed as %v, %v", e, got, err)
		}
	}
	if e, err := ParseEngine(""); e != Auto || err != nil {
		t.Errorf("the empty name: %v, %v", e, err)
	}
	if _, err := ParseEngine("fast"); err == nil {
		t.Error("an unknown name: no error")
	}
	seen := map[string]bool{}
	for _, r := range Reasons() {
		if name := r.String(); name == "" || seen[name] {
			t.Errorf("reason %d has the name %q, which is empty or taken", r, name)
		} else {
			seen[name] = true
		}
	}
	if len(seen) != int(numReasons) {
		t.Errorf("%d reasons, want %d", len(seen), numReasons)
	}
}
