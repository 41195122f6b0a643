package edge

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	runtimemetrics "runtime/metrics"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// flooder speaks HTTP/2 by the frame, and reads nothing by itself.
type flooder struct {
	*client
	*http2.Framer
	out  *bufio.Writer
	head bytes.Buffer
	*hpack.Encoder
}

func (r *running) flooder(a *authority) *flooder {
	r.t.Helper()
	f := &flooder{client: r.dial()}
	_ = f.Conn.(*net.TCPConn).SetReadBuffer(4096) // so that answers which nobody reads pile up at the edge
	cfg := a.client("edge.test")
	cfg.NextProtos = []string{"h2"}
	f.over(cfg)
	f.out = bufio.NewWriterSize(f.Conn, 16<<10)
	f.Framer, f.Encoder = http2.NewFramer(f.out, f.br), hpack.NewEncoder(&f.head)
	f.AllowIllegalWrites = true
	_, _ = f.out.WriteString(http2.ClientPreface)
	if err := errors.Join(f.WriteSettings(), f.out.Flush()); err != nil {
		r.t.Fatal(err)
	}
	return f
}

// block is a request's block of fields.
func (f *flooder) block(fields ...string) []byte {
	f.head.Reset()
	fields = append([]string{":method", "GET", ":scheme", "https", ":authority", "edge.test", ":path", "/?user=a"}, fields...)
	for i := 0; i < len(fields); i += 2 {
		_ = f.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // into memory
	}
	return f.head.Bytes()
}

// repeat writes frames up to n times, or until the edge has ended the connection, which it returns.
func (f *flooder) repeat(n int, write func(i int) error) (ended error) {
	for i := range n {
		if err := write(i); err != nil {
			return err
		}
	}
	return f.out.Flush()
}

// alive tells whether the edge still answers on this connection; where it does not it says why, and err is not a deadline's.
func (f *flooder) alive() (why http2.ErrCode, err error) {
	mark := [8]byte{'t', 'h', 'e', ' ', 'e', 'n', 'd', '.'}
	_ = f.WritePing(false, mark)
	_ = f.out.Flush()
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return why, err
		}
		switch frame := frame.(type) {
		case *http2.GoAwayFrame:
			why = frame.ErrCode
		case *http2.PingFrame:
			if frame.IsAck() && frame.Data == mark {
				return why, nil
			}
		}
	}
}

// What HTTP/2 lets a client ask for at no cost is bounded: the connection is ended, or goes on within its limits. Others are served
// meanwhile, and nothing is left.
func TestHTTP2Floods(t *testing.T) {
	fast(t)
	const streams, controls = 3000, 1_000_000
	floods := map[string]struct {
		ends bool // whether the connection is ended before all has been sent
		send func(f *flooder) error
	}{
		"rapid reset": {false, func(f *flooder) error {
			return f.repeat(streams, func(i int) error {
				id := uint32(2*i + 1)
				return errors.Join(f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.block(), EndStream: true, EndHeaders: true}),
					f.WriteRSTStream(id, http2.ErrCodeCancel))
			})
		}},
		"more streams than allowed": {false, func(f *flooder) error {
			return f.repeat(streams, func(i int) error {
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: f.block(), EndStream: true, EndHeaders: true})
			})
		}},
		"pings": {true, func(f *flooder) error {
			return f.repeat(controls, func(int) error { return f.WritePing(false, [8]byte{}) })
		}},
		"settings": {false, func(f *flooder) error { // one answer is for as many as have come
			return f.repeat(controls/50, func(int) error { return f.WriteSettings() })
		}},
		"continuations": {true, func(f *flooder) error {
			err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.block(), EndStream: true})
			return errors.Join(err, f.repeat(controls/100, func(i int) error {
				f.head.Reset()
				_ = f.WriteField(hpack.HeaderField{Name: fmt.Sprint("x-", i), Value: strings.Repeat("x", 1000), Sensitive: true})
				return f.WriteContinuation(1, false, f.head.Bytes())
			}))
		}},
		"a head that swells": {false, func(f *flooder) error {
			fields := []string{}
			for range 4000 { // a byte each on the wire, but for the first
				fields = append(fields, "x-bomb", strings.Repeat("x", 3000))
			}
			return f.repeat(20, func(i int) error {
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: f.block(fields...), EndStream: true, EndHeaders: true})
			})
		}},
	}
	a := newAuthority(t)
	backend := listenBackend(t, func(conn net.Conn, br *bufio.Reader, r *http.Request) {
		if r.Header.Get("X-Selvedge-User") == "other" {
			say(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			return
		}
		_, _ = br.ReadByte() // the flood's requests have no answer; they end when the edge gives them up
	})
	ln, err := (&net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { // what waits in the kernel is not the edge's
			_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, 4096)
		})
	}}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	secure := secureListener(a.leaf("edge.test"))
	secure.Inherited = ln
	e := start(t, Config{Listen: []Listener{secure}, Membership: members(backend)})
	for name, flood := range floods {
		t.Run(name, func(t *testing.T) {
			e := *e
			e.t = t
			e.nothingLeft(func() {
				peak := watchPeak(t)
				stop := make(chan struct{})
				var others sync.WaitGroup
				served := 0
				var slowest time.Duration
				others.Go(func() {
					transport := &http.Transport{TLSClientConfig: a.client("edge.test"), ForceAttemptHTTP2: true}
					defer transport.CloseIdleConnections()
					for running := true; running || served < 3; served++ {
						asked := time.Now()
						answer, err := (&http.Client{Transport: transport, Timeout: patience}).Get("https://" + e.Addr().String() + "/?user=other")
						if err != nil || answer.StatusCode != http.StatusOK {
							t.Errorf("another client: %v, %v", answer, err)
							return
						}
						_ = answer.Body.Close()
						slowest = max(slowest, time.Since(asked))
						select {
						case <-stop:
							running = false
						case <-time.After(5 * time.Millisecond):
						}
					}
				})
				f := e.flooder(a)
				err := flood.send(f)
				why, gone := f.alive()
				if flood.ends != (err != nil) || errors.Is(errors.Join(err, gone), os.ErrDeadlineExceeded) {
					t.Errorf("sent with %v, then the connection said %v", err, gone)
				}
				close(stop)
				others.Wait()
				goroutines, heap := peak()
				t.Logf("sent with %v, then %v (%v); %d more goroutines, %d MiB more; others were served %d times, in %v or less",
					err, gone, why, goroutines, heap>>20, served, slowest)
				if goroutines > streams/2 || heap > 64<<20 {
					t.Errorf("%d more goroutines, %d MiB more memory", goroutines, heap>>20)
				}
				_ = f.Close()
				e.transports.close() // requests that were given up leave connections for others
			})
		})
	}
}

// watchPeak watches this process until it is asked for the most goroutines and bytes on the heap that there were, above what there are now.
func watchPeak(t *testing.T) func() (goroutines int, heap uint64) {
	sample := []runtimemetrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	now := func() (int, uint64) {
		runtimemetrics.Read(sample)
		return runtime.NumGoroutine(), sample[0].Value.Uint64()
	}
	runtime.GC()
	g0, h0 := now()
	g, h := g0, h0
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for tick := time.NewTicker(2 * time.Millisecond); ; {
			select {
			case <-tick.C:
				gn, hn := now()
				g, h = max(g, gn), max(h, hn)
			case <-stop:
				tick.Stop()
				return
			}
		}
	}()
	return func() (int, uint64) {
		close(stop)
		<-done
		return g - g0, h - h0
	}
}
