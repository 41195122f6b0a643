package peerlink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	peerv1 "github.com/selvedge/selvedge/internal/peerv1"
	"github.com/selvedge/selvedge/internal/testkit"
)

// Requests are heard in the order of the calls, on one stream; replies find their calls, whatever order they come in.
func TestOrder(t *testing.T) {
	const n = 100
	var mu sync.Mutex
	var order []string
	var replies []func()
	m := startMember(t, "", func(_ context.Context, r *peerv1.Request, reply func(*peerv1.Reply)) {
		mu.Lock()
		defer mu.Unlock()
		order = append(order, heard(r))
		replies = append(replies, func() { reply(answer(heard(r))) })
		if len(replies) == n {
			slices.Reverse(replies)
			for _, f := range replies {
				f()
			}
		}
	})
	l, _ := newLinks(t)
	var calls sync.WaitGroup
	var want []string
	for i := range n {
		text := fmt.Sprint(i)
		want = append(want, text)
		calls.Go(func() { mustCall(t, l, m.addr, text) })
		if i < n-1 {
			testkit.Eventually(t, patience, func() bool { c, _ := l.state(m.addr); return c == i+1 }, "the call is under way")
		}
	}
	calls.Wait()
	if !slices.Equal(order, want) {
		t.Errorf("heard in the order %v", order)
	}
	if n := m.open(); n != 1 {
		t.Errorf("%d streams", n)
	}
}

// What has come together while the member was slow to read goes in few messages.
func TestBatches(t *testing.T) {
	m, gate := startStuck(t)
	l, _ := newLinks(t)
	calls := plug(t.Context(), t, l, m.addr)
	const n = 1000
	for range n {
		calls = append(calls, start(t.Context(), l, m.addr, say("hi")))
	}
	awaitState(t, l, m.addr, n+2, n)
	close(gate)
	awaitErrors(t, nil, calls...)
	m.in.mu.Lock()
	defer m.in.mu.Unlock()
	if want := []int{1, 1, 256, 256, 256, n - 3*256}; !slices.Equal(m.in.sizes, want) {
		t.Errorf("requests by message: %v; want %v", m.in.sizes, want)
	}
}

func TestBusy(t *testing.T) {
	m, gate := startStuck(t)
	defer close(gate)
	l, _ := newLinks(t)
	ctx, cancel := context.WithCancel(t.Context())
	calls := plug(ctx, t, l, m.addr)
	for range maxWaiting {
		calls = append(calls, start(ctx, l, m.addr, say("hi")))
	}
	awaitState(t, l, m.addr, maxWaiting+2, maxWaiting)
	awaitErrors(t, ErrBusy, start(t.Context(), l, m.addr, say("one more")))

	// Calls that were given up make room, and are not sent.
	cancel()
	awaitErrors(t, context.Canceled, calls...)
	awaitState(t, l, m.addr, 0, 0)

	ctx, cancel = context.WithCancel(t.Context())
	mega := strings.Repeat("x", 1<<20)
	calls = nil
	for range maxWaitingBytes / len(mega) {
		calls = append(calls, start(ctx, l, m.addr, say(mega)))
	}
	awaitState(t, l, m.addr, len(calls), len(calls))
	awaitErrors(t, ErrBusy, start(t.Context(), l, m.addr, say("one more")))
	cancel()
	awaitErrors(t, context.Canceled, calls...)

	s, err := l.stream(m.addr)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	for i := range maxCalls {
		s.calls[uint64(1<<32+i)] = &call{done: make(chan result, 1)}
	}
	s.mu.Unlock()
	awaitErrors(t, ErrBusy, start(t.Context(), l, m.addr, say("one more")))
}

func TestLargeAmongSmall(t *testing.T) {
	m := startMember(t, "", echo)
	l, _ := newLinks(t)
	var calls sync.WaitGroup
	for i := range 8 {
		calls.Go(func() { mustCall(t, l, m.addr, strings.Repeat(string(rune('a'+i)), 1<<20)) })
		calls.Go(func() {
			for j := range 50 {
				mustCall(t, l, m.addr, fmt.Sprint(i, j))
			}
		})
	}
	calls.Wait()
}

// Many calls at once, some given up at any moment: each reply is its call's own, and nothing stays behind.
func TestManyCalls(t *testing.T) {
	m := startMember(t, "", func(ctx context.Context, r *peerv1.Request, reply func(*peerv1.Reply)) {
		if len(heard(r))%3 == 0 {
			go echo(ctx, r, reply)
		} else {
			echo(ctx, r, reply)
		}
	})
	l, _ := newLinks(t)
	var calls sync.WaitGroup
	var given atomic.Int64
	for i := range 64 {
		calls.Go(func() {
			for j := range 100 {
				text := fmt.Sprint(i, " ", j)
				ctx, cancel := context.WithCancel(t.Context())
				if j%5 == 0 {
					time.AfterFunc(time.Duration(i*j)*time.Microsecond/10, cancel)
				}
				reply, err := l.Call(ctx, m.addr, say(text))
				switch {
				case err == nil && answered(reply) != text:
					t.Errorf("%q was answered with %q", text, answered(reply))
				case errors.Is(err, context.Canceled) && j%5 == 0:
					given.Add(1)
				case err != nil:
					t.Error(err)
				}
				cancel()
			}
		})
	}
	calls.Wait()
	awaitState(t, l, m.addr, 0, 0)
	t.Logf("%d calls were given up", given.Load())
}

// A reply that comes after its call was given up is dropped, and harms nobody.
func TestLateReply(t *testing.T) {
	late := make(chan func(), 1)
	m := startMember(t, "", func(ctx context.Context, r *peerv1.Request, reply func(*peerv1.Reply)) {
		if heard(r) == "late" {
			late <- func() { reply(answer("late")) }
			return
		}
		echo(ctx, r, reply)
	})
	l, _ := newLinks(t)
	ctx, cancel := context.WithCancel(t.Context())
	call := start(ctx, l, m.addr, say("late"))
	reply := <-late
	cancel()
	awaitErrors(t, context.Canceled, call)
	reply()
	mustCall(t, l, m.addr, "next")
	awaitErrors(t, context.Canceled, start(ctx, l, m.addr, say("not even sent")))
}

// What cannot be encoded fails alone, whichever side has it.
func TestNotUTF8(t *testing.T) {
	m := startMember(t, "", func(_ context.Context, r *peerv1.Request, reply func(*peerv1.Reply)) {
		reply(answer(map[string]string{"bad": "\xff", "good": "good"}[heard(r)]))
	})
	l, _ := newLinks(t)
	if _, err := l.Call(t.Context(), m.addr, say("\xff")); err == nil || errors.Is(err, ErrLost) {
		t.Errorf("a request that is not UTF-8: %v", err)
	}
	if reply, err := l.Call(t.Context(), m.addr, say("bad")); err != nil || reply.GetError().GetCode() != "internal" {
		t.Errorf("a reply that is not UTF-8: %v, %v", reply, err)
	}
	mustCall(t, l, m.addr, "good")
}

func TestCredential(t *testing.T) {
	m := startMember(t, "", echo)
	l := New(Config{Token: "wrong", OnLost: func(addr string) { t.Errorf("%s was lost", addr) }})
	defer l.Close()
	for range 2 {
		_, err := l.Call(t.Context(), m.addr, say("hi"))
		if connect.CodeOf(err) != connect.CodeUnauthenticated || errors.Is(err, ErrLost) || errors.Is(err, ErrRefused) {
			t.Errorf("a wrong token: %v", err)
		}
	}
}

// A member that stops is lost to those who wait, refused to those who come, and found again when it is back.
func TestStopAndComeBack(t *testing.T) {
	m, gate := startStuck(t)
	defer close(gate)
	l, lost := newLinks(t)
	mustCall(t, l, m.addr, "hi")
	call := start(t.Context(), l, m.addr, say("stuck"))
	awaitState(t, l, m.addr, 1, 0)
	m.stop()
	awaitErrors(t, ErrLost, call)
	if addr := <-lost; addr != m.addr {
		t.Errorf("%s was lost; want %s", addr, m.addr)
	}
	var calls []<-chan error
	for range 50 {
		calls = append(calls, start(t.Context(), l, m.addr, say("hi")))
	}
	awaitErrors(t, ErrRefused, calls...)
	awaitErrors(t, ErrRefused, start(t.Context(), l, strings.Replace(m.addr, "127.0.0.1", "localhost", 1), say("hi")))
	startMember(t, m.addr, echo)
	mustCall(t, l, m.addr, "back")
	if len(lost) > 0 {
		t.Errorf("%s was lost, which never took a stream", <-lost)
	}
}

// kill -9 is known at once: whoever waits is told, and the next call is refused.
func TestKilled(t *testing.T) {
	p := startProcess(t)
	l, lost := newLinks(t)
	mustCall(t, l, p.addr, "hi")
	call := start(t.Context(), l, p.addr, say("silence"))
	awaitState(t, l, p.addr, 1, 0)
	begin := time.Now()
	if err := p.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	awaitErrors(t, ErrLost, call)
	<-lost
	awaitErrors(t, ErrRefused, start(t.Context(), l, p.addr, say("hi")))
	took := time.Since(begin)
	if took > 2*time.Second {
		t.Errorf("refused %v after the kill", took)
	}
	t.Logf("refused %v after the kill", took)
}

// A process that hangs costs its callers their deadlines and nothing more; pings find it out in the end.
func TestHung(t *testing.T) {
	t.Parallel()
	p := startProcess(t)
	l, lost := newLinks(t)
	mustCall(t, l, p.addr, "hi")
	if err := p.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var calls []<-chan error
	for range 200 {
		calls = append(calls, start(ctx, l, p.addr, say(strings.Repeat("x", 20<<10))))
	}
	awaitErrors(t, context.DeadlineExceeded, calls...)
	awaitState(t, l, p.addr, 0, 0)
	if len(lost) > 0 {
		t.Fatal("lost already")
	}
	call := start(t.Context(), l, p.addr, say("hi"))
	awaitErrors(t, ErrLost, call)
	<-lost
	awaitState(t, l, p.addr, 0, 0)
	if err := p.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	mustCall(t, l, p.addr, "awake")
}

// A connection that cannot be opened in time proves nothing.
func TestDialTimeout(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	raw, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { err = syscall.Listen(int(fd), 0) }); err != nil {
		t.Fatal(err)
	}
	// Fills the queue of connections that nobody accepts.
	for {
		conn, err := net.DialTimeout("tcp", ln.Addr().String(), 100*time.Millisecond)
		if err != nil {
			break
		}
		defer conn.Close() //nolint:gocritic // there are two or three
	}
	l, lost := newLinks(t)
	calls := []<-chan error{start(t.Context(), l, ln.Addr().String(), say("a")), start(t.Context(), l, ln.Addr().String(), say("b"))}
	awaitErrors(t, ErrLost, calls...)
	if len(lost) > 0 {
		t.Error("lost, though there never was a stream")
	}
}

// Somebody listens there who takes no stream: that proves nothing either.
func TestNotAMember(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for conn, err := ln.Accept(); err == nil; conn, err = ln.Accept() {
			conn.Close()
		}
	})
	defer accepting.Wait()
	defer ln.Close()
	l, lost := newLinks(t)
	awaitErrors(t, ErrLost, start(t.Context(), l, ln.Addr().String(), say("hi")))
	if len(lost) > 0 {
		t.Error("lost, though there never was a stream")
	}
}

func TestResetClose(t *testing.T) {
	silent := func(_ context.Context, r *peerv1.Request, reply func(*peerv1.Reply)) {
		if heard(r) != "silence" {
			reply(answer(heard(r)))
		}
	}
	a, b := startMember(t, "", silent), startMember(t, "", silent)
	l, lost := newLinks(t)
	both := func() (calls []<-chan error) {
		for _, m := range []*member{a, b} {
			mustCall(t, l, m.addr, "hi")
			calls = append(calls, start(t.Context(), l, m.addr, say("silence")))
			awaitState(t, l, m.addr, 1, 0)
		}
		return calls
	}
	open := func(m *member, n int) {
		t.Helper()
		testkit.Eventually(t, patience, func() bool { return m.open() == n }, fmt.Sprintf("%d streams", n))
	}

	calls := both()
	l.Reset()
	awaitErrors(t, ErrLost, calls...)
	open(a, 0)
	open(b, 0)

	calls = both()
	late, err := l.stream(a.addr) // by a call that has not come to send yet
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := late.call(t.Context(), say("hi")); !errors.Is(err, ErrLost) {
		t.Errorf("a call on a stream that was ended: %v", err)
	}
	awaitErrors(t, ErrLost, calls...)
	awaitErrors(t, ErrLost, start(t.Context(), l, a.addr, say("hi")))
	open(a, 0)
	if len(lost) > 0 {
		t.Errorf("%s was lost, and should have been ended", <-lost)
	}
}
