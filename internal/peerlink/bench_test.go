package peerlink

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
	peerv1 "github.com/selvedge/selvedge/internal/peerv1"
	"github.com/selvedge/selvedge/internal/rpc"
)

// BenchmarkCall is a push of 100 bytes from member to member and its answer, both ends in this process, beside the same as a unary
// call by gRPC. cpu-ns/op counts all threads.
func BenchmarkCall(b *testing.B) {
	text := fmt.Sprintf("%0100d", 1)

	m := startMember(b, "", func(_ context.Context, _ *peerv1.Request, reply func(*peerv1.Reply)) {
		reply(&peerv1.Reply{Body: &peerv1.Reply_Answer{Answer: &peerv1.Answer{Sessions: []string{"session-1"}, Complete: true}}})
	})
	l, _ := newLinks(b)
	link := func() error {
		message := &peerv1.Message{Id: "01J8ZQ4W3K5T", Payload: &peerv1.Message_Text{Text: text}}
		deliver := &peerv1.Deliver{User: "alice", Message: message, Forward: true, RemainingMs: 5000}
		_, err := l.Call(b.Context(), m.addr, &peerv1.Request{Body: &peerv1.Request_Deliver{Deliver: deliver}})
		return err
	}

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(pushv1.NewPushServiceHandler(unary{}))
	server := rpc.Server(mux)
	ended := make(chan struct{})
	go func() { _ = server.Serve(ln); close(ended) }()
	defer func() { server.Close(); <-ended }()
	caller, closeAll := rpc.Client("", nil)
	defer closeAll()
	client := pushv1.NewPushServiceClient(caller, "http://"+ln.Addr().String(), connect.WithGRPC(),
		connect.WithAcceptCompression("gzip", nil, nil))
	grpc := func() error {
		_, err := client.Push(b.Context(), connect.NewRequest(&pushv1.PushRequest{
			User: "alice", MessageId: "01J8ZQ4W3K5T", Payload: &pushv1.PushRequest_Text{Text: text}, TimeoutMs: 5000,
		}))
		return err
	}

	for _, at := range []struct {
		name string
		call func() error
	}{{"link", link}, {"unary", grpc}} {
		for _, concurrent := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/%d", at.name, concurrent), func(b *testing.B) { drive(b, concurrent, at.call) })
		}
	}
}

// drive makes b.N calls, so many at a time.
func drive(b *testing.B, concurrent int, call func() error) {
	if err := call(); err != nil { // opens the connection
		b.Fatal(err)
	}
	b.ReportAllocs()
	before := cpu(b)
	b.ResetTimer()
	var callers sync.WaitGroup
	for i := range concurrent {
		callers.Go(func() {
			for range (b.N + i) / concurrent {
				if err := call(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	callers.Wait()
	b.StopTimer()
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
}

// cpu is what this process has used of it, in nanoseconds.
func cpu(b *testing.B) int64 {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return used.Utime.Nano() + used.Stime.Nano()
}

// unary is a push service that does no work.
type unary struct {
	pushv1.UnimplementedPushServiceHandler
}

func (unary) Push(context.Context, *connect.Request[pushv1.PushRequest]) (*connect.Response[pushv1.PushResponse], error) {
	return connect.NewResponse(&pushv1.PushResponse{Outcome: pushv1.Outcome_DELIVERED, Sessions: 1, MessageId: "01J8ZQ4W3K5T"}), nil
}
