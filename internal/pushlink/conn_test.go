package pushlink

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/rpc"
	"github.com/selvedge/selvedge/internal/testkit"
)

// linkTo makes a link to a member that serves upgraded connections so, until the test ends.
func linkTo(t *testing.T, serve func(ctx context.Context, conn net.Conn, in *bufio.Reader)) *Link {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	member := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		served.Add(1)
		defer served.Done()
		conn, in, err := rpc.Accept(w, Protocol)
		if err != nil {
			t.Error(err)
			return
		}
		serve(ctx, conn, in)
	}))
	l := New()
	var running sync.WaitGroup
	running.Go(func() {
		l.Run(func(ctx context.Context) (net.Conn, *bufio.Reader, error) {
			return rpc.Upgrade(ctx, member.Listener.Addr().String(), "/", Protocol, "")
		}, nil)
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
		cancel()
		served.Wait()
		member.Close()
		goleak.VerifyNone(t, leaks)
	})
	return l
}

func push(n int, payload []byte) *pushv1.PushRequest {
	return &pushv1.PushRequest{User: fmt.Sprint(n), Payload: &pushv1.PushRequest_Data{Data: payload}, TimeoutMs: 30_000}
}

// Every push gets its own answer, whether it is given at once or later, and many pushes share a frame.
func TestConn(t *testing.T) {
	var batches atomic.Int32
	l := linkTo(t, func(ctx context.Context, conn net.Conn, in *bufio.Reader) {
		err := ServeConn(ctx, conn, in, func(_ context.Context, calls []*pushv1.PushCall, answer func(*pushv1.PushAnswer)) error {
			batches.Add(1)
			for _, c := range calls {
				a := &pushv1.PushAnswer{Call: c.Call, Member: c.Push.User, Sessions: 1}
				if c.Call%3 == 0 {
					go answer(a)
				} else {
					answer(a)
				}
			}
			return nil
		})
		if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the member: %v", err)
		}
	})
	const pushers, each = 64, 200
	var waiting sync.WaitGroup
	for p := range pushers {
		waiting.Go(func() {
			for i := range each {
				n := p*each + i
				a, err := l.Push(t.Context(), push(n, make([]byte, n%5000)))
				if err != nil || a.Member != fmt.Sprint(n) {
					t.Errorf("push %d: %v, %v", n, a, err)
					return
				}
			}
		})
	}
	waiting.Wait()
	if n := batches.Load(); n > pushers*each*3/4 {
		t.Errorf("%d frames for %d pushes, 64 at once; want that they share", n, pushers*each)
	}
}

// A member that takes the connection and then does not read holds up nobody for longer than he wants to wait; when it reads on, all goes on.
func TestMemberThatDoesNotRead(t *testing.T) {
	readOn := make(chan struct{})
	l := linkTo(t, func(ctx context.Context, conn net.Conn, in *bufio.Reader) {
		if _, err := conn.Write(make([]byte, frameHead)); err != nil {
			t.Error(err)
		}
		select {
		case <-readOn:
		case <-ctx.Done():
		}
		_ = ServeConn(ctx, conn, in, func(_ context.Context, calls []*pushv1.PushCall, answer func(*pushv1.PushAnswer)) error {
			for _, c := range calls {
				answer(&pushv1.PushAnswer{Call: c.Call, Sessions: 1})
			}
			return nil
		})
	})
	// More than sockets hold; each of these would wait for good if it wrote as connections do.
	var waiting sync.WaitGroup
	start := time.Now()
	for i := range 400 {
		waiting.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			if _, err := l.Push(ctx, push(i, make([]byte, 60_000))); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("push %d: %v", i, err)
			}
		})
	}
	waiting.Wait()
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("pushes with 300 ms waited for %v", took)
	}
	close(readOn)
	if a, err := l.Push(t.Context(), push(0, nil)); err != nil || a.Sessions != 1 {
		t.Errorf("after the member reads on: %v, %v", a, err)
	}
}

// What was under way when a connection broke is not known, and the link is over.
func TestConnBreaks(t *testing.T) {
	for name, end := range map[string][]byte{"between frames": nil, "in a frame": {0, 0, 0, 9, 1}, "by nonsense": {0xff, 0, 0, 0}} {
		t.Run(name, func(t *testing.T) {
			l := linkTo(t, func(_ context.Context, conn net.Conn, in *bufio.Reader) {
				defer conn.Close()
				_, _ = conn.Write(make([]byte, frameHead))
				if _, err := (&frames{in: in}).next(); err != nil {
					t.Error(err)
				}
				_, _ = conn.Write(end)
			})
			if _, err := l.Push(t.Context(), push(1, nil)); !errors.Is(err, ErrBroken) {
				t.Errorf("%v; want that it broke", err)
			}
			testkit.Eventually(t, 5*time.Second, l.HasEnded, "the link to end")
		})
	}
}

// A peer that answers pings is kept however long it has nothing else to say; one that does not is given up.
func TestWatched(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	const after, timeout = 50 * time.Millisecond, 5 * time.Second
	pings := make(chan struct{}, 100)
	w := &watched{Conn: ours, after: after, timeout: timeout, ping: func() { pings <- struct{}{} }}
	_ = ours.SetReadDeadline(time.Now().Add(after))
	go func() {
		for range 3 {
			<-pings
			_, _ = theirs.Write([]byte{7})
		}
	}()
	var b [1]byte
	for i := range 3 {
		if n, err := w.Read(b[:]); n != 1 || err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
	}
	w.timeout = 50 * time.Millisecond // nobody answers any more
	if _, err := w.Read(b[:]); !errors.Is(err, errSilent) {
		t.Errorf("%v; want that it is silent", err)
	}
}

// A member answers pings.
func TestPing(t *testing.T) {
	ours, theirs := net.Pipe()
	ended := make(chan error)
	go func() { ended <- ServeConn(context.Background(), theirs, bufio.NewReader(theirs), nil) }()
	in := frames{in: bufio.NewReader(ours)}
	for i := range 3 { // the first says that the connection is taken
		if body, err := in.next(); err != nil || len(body) != 0 {
			t.Fatalf("frame %d: %q, %v", i, body, err)
		}
		if _, err := ours.Write(make([]byte, frameHead)); err != nil {
			t.Fatal(err)
		}
	}
	if body, err := in.next(); err != nil || len(body) != 0 {
		t.Fatalf("%q, %v", body, err)
	}
	ours.Close()
	if err := <-ended; err != nil {
		t.Errorf("at the end: %v", err)
	}
}

// What is written as frames is read as such, whatever pieces it comes in.
func TestFrames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bodies := rapid.SliceOf(rapid.SliceOfN(rapid.Byte(), 0, 200)).Draw(t, "bodies")
		var wire []byte
		for _, b := range bodies {
			start := len(wire)
			wire = append(append(wire, make([]byte, frameHead)...), b...)
			endFrame(wire, start)
		}
		cut := rapid.IntRange(0, len(wire)).Draw(t, "cut")
		in := frames{in: bufio.NewReaderSize(iotest.HalfReader(bytes.NewReader(wire[:cut])), 16)}
		at := 0
		for _, b := range bodies {
			buffer, err := in.next()
			if err != nil {
				if want := map[bool]error{true: io.EOF, false: io.ErrUnexpectedEOF}[cut == at]; !errors.Is(err, want) || cut >= at+frameHead+len(b) {
					t.Fatalf("%v at %d of %d", err, at, cut)
				}
				return
			}
			if !bytes.Equal(buffer, b) {
				t.Fatalf("%x instead of %x", buffer, b)
			}
			at += frameHead + len(b)
		}
		if _, err := in.next(); !errors.Is(err, io.EOF) {
			t.Fatalf("at the end: %v", err)
		}
	})
}

// Strangers that have the token may send anything.
func FuzzServeConn(f *testing.F) {
	call := &pushv1.PushCalls{Calls: []*pushv1.PushCall{{Call: 1, Push: push(1, []byte("hi"))}, {Call: 2}}}
	body, err := proto.Marshal(call)
	if err != nil {
		f.Fatal(err)
	}
	frame := append(make([]byte, frameHead), body...)
	endFrame(frame, 0)
	f.Add(frame)
	f.Add(append(bytes.Clone(frame), frame[:len(frame)-1]...))
	f.Add(make([]byte, frameHead))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		ours, theirs := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, ours) }()
		go func() {
			_, _ = ours.Write(data)
			_ = ours.Close()
		}()
		begun := 0
		_ = ServeConn(context.Background(), theirs, bufio.NewReader(theirs),
			func(_ context.Context, calls []*pushv1.PushCall, answer func(*pushv1.PushAnswer)) error {
				for _, c := range calls {
					begun++
					answer(&pushv1.PushAnswer{Call: c.Call})
				}
				return nil
			})
		if begun > len(data) {
			t.Errorf("%d calls in %d bytes", begun, len(data))
		}
	})
}
