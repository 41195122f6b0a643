package peerlink

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	"github.com/selvedge/selvedge/internal/admin"
	peerv1 "github.com/selvedge/selvedge/internal/peerv1"
	"github.com/selvedge/selvedge/internal/rpc"
	"github.com/selvedge/selvedge/internal/testkit"
)

const (
	token    = "s3cret"
	patience = 20 * time.Second // for what should take milliseconds

	asProcess = "PEERLINK_TEST_MEMBER" // set: this is the process that process started
)

func TestMain(m *testing.M) {
	if os.Getenv(asProcess) != "" {
		beMember()
		return
	}
	goleak.VerifyTestMain(m)
}

// member is a process that others speak to, in the process of the test.
type member struct {
	*Handler
	addr   string
	server *http.Server
	in     *batches
	ended  chan struct{}
}

// startMember listens at addr, or at a free port of 127.0.0.1.
func startMember(t testing.TB, addr string, serve Serve) *member {
	t.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	m := &member{addr: ln.Addr().String(), in: new(batches), ended: make(chan struct{})}
	path, handler := NewHandler(serve, connect.WithInterceptors(m.in))
	m.Handler = handler
	mux := http.NewServeMux()
	mux.Handle(path, admin.RequireToken(token, handler))
	m.server = rpc.Server(mux)
	go func() { _ = m.server.Serve(ln); close(m.ended) }()
	t.Cleanup(m.stop)
	return m
}

func (m *member) stop() {
	m.server.Close()
	<-m.ended
}

// open is how many streams to m there are.
func (m *member) open() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.streams)
}

// batches counts the messages that came in, as Connect sees them.
type batches struct {
	connect.Interceptor
	mu    sync.Mutex
	sizes []int
}

func (b *batches) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return next(ctx, countingConn{conn, b})
	}
}

type countingConn struct {
	connect.StreamingHandlerConn
	in *batches
}

func (c countingConn) Receive(m any) error {
	err := c.StreamingHandlerConn.Receive(m)
	if err == nil {
		c.in.mu.Lock()
		c.in.sizes = append(c.in.sizes, len(m.(*peerv1.Requests).Requests))
		c.in.mu.Unlock()
	}
	return err
}

// newLinks returns Links with the right token, and where lost addresses come out.
func newLinks(t testing.TB) (*Links, <-chan string) {
	t.Helper()
	lost := make(chan string, 100)
	l := New(Config{Token: token, OnLost: func(addr string) { lost <- addr }})
	t.Cleanup(l.Close)
	return l, lost
}

// say is a request that carries text; heard reads it, in a request or in the reply of echo.
func say(text string) *peerv1.Request {
	return &peerv1.Request{Body: &peerv1.Request_Deliver{Deliver: &peerv1.Deliver{User: text}}}
}

func heard(r *peerv1.Request) string { return r.GetDeliver().GetUser() }

func answer(text string) *peerv1.Reply {
	return &peerv1.Reply{Body: &peerv1.Reply_Answer{Answer: &peerv1.Answer{Sessions: []string{text}}}}
}

func answered(r *peerv1.Reply) string { return strings.Join(r.GetAnswer().GetSessions(), ",") }

func echo(_ context.Context, r *peerv1.Request, reply func(*peerv1.Reply)) { reply(answer(heard(r))) }

// mustCall wants an echo.
func mustCall(t testing.TB, l *Links, addr, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if reply, err := l.Call(ctx, addr, say(text)); err != nil || answered(reply) != text {
		t.Fatalf("Call: %.100q, %v; want %.100q", answered(reply), err, text)
	}
}

// start calls without waiting for the reply; the error comes out.
func start(ctx context.Context, l *Links, addr string, r *peerv1.Request) <-chan error {
	done := make(chan error, 1)
	go func() { _, err := l.Call(ctx, addr, r); done <- err }()
	return done
}

// state is how many calls of the stream to addr are under way, and how many of them wait to be sent.
func (l *Links) state(addr string) (calls, waiting int) {
	l.mu.Lock()
	s := l.streams[addr]
	l.mu.Unlock()
	if s == nil {
		return 0, 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	return len(s.calls), s.out.waiting.Len()
}

func awaitState(t testing.TB, l *Links, addr string, calls, waiting int) {
	t.Helper()
	testkit.Eventually(t, patience, func() error {
		if c, w := l.state(addr); c != calls || w != waiting {
			return fmt.Errorf("%d calls under way, %d of them waiting to be sent", c, w)
		}
		return nil
	}, fmt.Sprintf("%d calls, %d waiting", calls, waiting))
}

// awaitErrors wants every call to end with want.
func awaitErrors(t testing.TB, want error, calls ...<-chan error) {
	t.Helper()
	deadline := time.After(patience)
	for i, c := range calls {
		select {
		case err := <-c:
			if !errors.Is(err, want) {
				t.Fatalf("call %d: %v; want %v", i, err, want)
			}
		case <-deadline:
			t.Fatalf("call %d has not ended", i)
		}
	}
}

// stuck is a member that hears the first request, called "stuck", and then nothing until gate is closed.
func startStuck(t testing.TB) (m *member, gate chan struct{}) {
	gate = make(chan struct{})
	m = startMember(t, "", func(ctx context.Context, r *peerv1.Request, reply func(*peerv1.Reply)) {
		if strings.HasPrefix(heard(r), "stuck") {
			<-gate
		}
		echo(ctx, r, reply)
	})
	return m, gate
}

// plug makes a stuck member's stream unable to send more: two requests that the flow control lets not through.
func plug(ctx context.Context, t testing.TB, l *Links, addr string) []<-chan error {
	t.Helper()
	large := strings.Repeat("x", 8<<20)
	first := start(ctx, l, addr, say("stuck"))
	awaitState(t, l, addr, 1, 0)
	second := start(ctx, l, addr, say(large))
	awaitState(t, l, addr, 2, 0)
	return []<-chan error{first, second}
}

// process is a member in a process of its own, for signals.
type process struct {
	*exec.Cmd
	addr string
}

func startProcess(t *testing.T) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asProcess+"=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // a test may have done it
		_ = cmd.Wait()
		stdin.Close()
	})
	addr, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return &process{cmd, strings.TrimSpace(addr)}
}

// beMember echoes until the test's process has ended. A request that says "silence" gets no reply.
func beMember() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	path, handler := NewHandler(func(ctx context.Context, r *peerv1.Request, reply func(*peerv1.Reply)) {
		if heard(r) != "silence" {
			echo(ctx, r, reply)
		}
	})
	mux := http.NewServeMux()
	mux.Handle(path, admin.RequireToken(token, handler))
	go func() { panic(rpc.Server(mux).Serve(ln)) }()
	fmt.Println(ln.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
}
