//go:build unix

package tunnel

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// long asks for the tests at their full size, which take minutes: SELVEDGE_LONG=1 go test ./internal/tunnel ./edge
var long = os.Getenv("SELVEDGE_LONG") != ""

// stream is what one end sends: bytes that follow from the seed, so that the other end can tell each of them.
type stream struct {
	seed  uint64
	size  int
	reset bool // instead of an end
}

func (s stream) source() *rand.ChaCha8 {
	return rand.NewChaCha8([32]byte{byte(s.seed), byte(s.seed >> 8), byte(s.seed >> 16)})
}

// send writes in chunks of random sizes with pauses, and then ends the stream.
func (s stream) send(c farEnd) error {
	rng, source, buf := rand.New(rand.NewPCG(s.seed, 7)), s.source(), make([]byte, 64<<10)
	for left := s.size; left > 0; {
		chunk := buf[:min(left, 1+rng.IntN([]int{10, 2 << 10, len(buf)}[rng.IntN(3)]))]
		_, _ = source.Read(chunk)
		if _, err := c.Write(chunk); err != nil {
			return err
		}
		left -= len(chunk)
		if rng.IntN(8) == 0 {
			time.Sleep(time.Duration(rng.IntN(2000)) * time.Microsecond) // a pause is part of the pattern; nothing waits for it
		}
	}
	if s.reset {
		return errors.Join(c.SetLinger(0), c.Close())
	}
	return c.CloseWrite()
}

// check reads the stream to its end: all of it, or the beginning of it where it is reset.
func (s stream) check(c farEnd) error {
	source, buf, want := s.source(), make([]byte, 32<<10), make([]byte, 32<<10)
	for got := 0; ; {
		n, err := c.Read(buf)
		_, _ = source.Read(want[:n])
		got += n
		switch {
		case !bytes.Equal(buf[:n], want[:n]):
			return fmt.Errorf("seed %d: other bytes before byte %d", s.seed, got)
		case err == nil:
		case s.reset && errors.Is(err, syscall.ECONNRESET) && got <= s.size, !s.reset && err == io.EOF && got == s.size:
			return nil
		default:
			return fmt.Errorf("seed %d: %d of %d bytes, reset %v: %w", s.seed, got, s.size, s.reset, err)
		}
	}
}

// live is what becomes of one tunnel of a crowd: streams both ways, of which one may end in a reset.
func live(j *joined, seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 9))
	size := func() int { return rng.IntN([]int{1, 1 << 10, 32 << 10, 256 << 10}[rng.IntN(4)]) }
	there, back := stream{seed: 2 * seed, size: size()}, stream{seed: 2*seed + 1, size: size()}
	_ = j.client.SetDeadline(time.Now().Add(2 * patience))
	_ = j.backend.SetDeadline(time.Now().Add(2 * patience))
	var err [4]error
	var wg sync.WaitGroup
	switch fate := rng.IntN(4); fate {
	case 0, 1: // both at once, each to its end
		wg.Go(func() { err[0] = there.send(j.client) })
		wg.Go(func() { err[1] = back.send(j.backend) })
		wg.Go(func() { err[2] = there.check(j.backend) })
		wg.Go(func() { err[3] = back.check(j.client) })
	case 2: // one after the other, the second on a connection that is half closed
		wg.Go(func() { err[0] = there.send(j.client) })
		wg.Go(func() {
			if err[1] = there.check(j.backend); err[1] == nil {
				err[2] = back.send(j.backend)
			}
		})
		wg.Go(func() { err[3] = back.check(j.client) })
	case 3: // a reset
		there.reset = true
		from, to := j.client, j.backend
		if seed%2 == 0 {
			from, to = to, from
		}
		wg.Go(func() { err[0] = there.send(from) })
		wg.Go(func() { err[1] = there.check(to) })
	}
	wg.Wait()
	return errors.Join(err[:]...)
}

// TestCrowd has thousands of tunnels open at once, each with a life of its own, and new ones for those that have ended. Nothing may be
// left of them.
func TestCrowd(t *testing.T) {
	total, atOnce := 300, 160
	if long {
		total, atOnce = 10_000, min(4_000, (descriptorLimit(t)-600)/4)
	}
	for _, m := range modes[:3] {
		t.Run(m.name, func(t *testing.T) {
			inMode(t, m, 2, Config{}, func(t *testing.T, r *rig) {
				open := make(chan *joined, atOnce)
				fill := func() {
					for len(open) < atOnce {
						open <- r.join(t, early{})
					}
				}
				fill()
				var after [2]uint64 // live memory with a full house, at the beginning and in the end
				for done := 0; done < total; fill() {
					if done == 0 {
						after[0] = heap()
					}
					var wg sync.WaitGroup
					for w := range 48 {
						wg.Go(func() {
							for i := w; i < atOnce/2; i += 48 {
								j := <-open
								if err := live(j, uint64(done+i)); err != nil {
									t.Error(err)
								}
								j.end(t)
							}
						})
					}
					wg.Wait()
					done += atOnce / 2
				}
				if after[1] = heap(); float64(after[1]) > 1.05*float64(after[0])+(1<<20) { // what the loops keep to lend: 1 MiB each at most
					t.Errorf("%d tunnels take %d bytes after %d others, %d at first", atOnce, after[1], total, after[0])
				}
				t.Logf("%+v; %d bytes at first, %d in the end", r.relay.Counters(), after[0], after[1])
				for len(open) > 0 {
					(<-open).end(t)
				}
			})
		})
	}
}

func descriptorLimit(t *testing.T) int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	return int(min(limit.Cur, 1<<20))
}

// TestReaderThatStops has a client stop reading while its backend sends as fast as it can. What is taken from the backend meanwhile is
// what the kernel and the tunnel hold: it must come to an end. Others do not feel it, and then every byte arrives.
func TestReaderThatStops(t *testing.T) {
	stall := 800 * time.Millisecond
	if long {
		stall = 30 * time.Second
	}
	for _, m := range modes[:3] {
		t.Run(m.name, func(t *testing.T) {
			inMode(t, m, 1, Config{}, func(t *testing.T, r *rig) {
				j := r.join(t, early{})
				var others []*joined
				for range 20 {
					others = append(others, r.join(t, early{}))
				}
				before := chatting(t, others, 20*time.Millisecond, stall/4)
				quiet := heap()
				sending := stream{seed: 77, size: 24 << 20}
				sent := make(chan error, 1)
				var held counted
				held.farEnd = j.backend
				go func() { sent <- sending.send(&held) }()
				eventually(t, "the backend can send no more", held.still)
				most := held.taken()
				during := chatting(t, others, 20*time.Millisecond, stall)
				if now := held.taken(); now != most || most >= sending.size {
					t.Errorf("%d bytes taken, then %d: there is no bound", most, now)
				}
				if grown := int64(heap()) - int64(quiet); grown > 1<<20 {
					t.Errorf("memory has grown by %d bytes", grown)
				}
				t.Logf("%d bytes held; others' p50 %v before, %v meanwhile", most, before[len(before)/2], during[len(during)/2])
				if p50 := during[len(during)/2]; p50 > 3*before[len(before)/2]+5*time.Millisecond {
					t.Errorf("others' p50 is %v, %v before", p50, before[len(before)/2])
				}
				_ = j.client.SetDeadline(time.Now().Add(3 * patience))
				if err := errors.Join(sending.check(j.client), receive(t, sent)); err != nil {
					t.Error(err)
				}
				for _, j := range append(others, j) {
					j.end(t)
				}
			})
		})
	}
}

// counted counts what is taken by Write.
type counted struct {
	farEnd
	mu   sync.Mutex
	n    int
	last time.Time
}

// Write passes small pieces on, so that the count is exact to one of them.
func (c *counted) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		var w int
		w, err = c.farEnd.Write(p[:min(len(p), 4<<10)])
		p = p[w:]
		n += w
		c.mu.Lock()
		c.n += w
		c.last = time.Now()
		c.mu.Unlock()
	}
	return n, err
}

func (c *counted) taken() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// still tells whether nothing has been taken for a while.
func (c *counted) still() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n > 0 && time.Since(c.last) > 300*time.Millisecond
}

var _ net.Conn = (*counted)(nil)
