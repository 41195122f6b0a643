package pushv1_test

import (
	"context"
	"fmt"
	"net/http"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/discovery"
)

// Any Connect or gRPC client can push; what tells errors of one code apart is their detail. Go programs are better off with package
// backend/sender.
func Example() {
	b, err := backend.New(backend.Config{
		ID: "b1", Listen: "127.0.0.1:0", RPC: "127.0.0.1:0", Membership: backend.Membership{Memory: discovery.NewMemory()},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	<-b.Ready()
	defer func() { stop(); <-ended }()

	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	client := pushv1.NewPushServiceClient(&http.Client{Transport: transport}, "http://"+b.RPCAddr().String())
	text := &pushv1.PushRequest_Text{Text: "your order has left"}
	answer, err := client.Push(ctx, connect.NewRequest(&pushv1.PushRequest{User: "alice", Payload: text}))
	if err != nil {
		fmt.Println(connect.CodeOf(err), pushv1.DetailOf(err).GetReason())
		return
	}
	fmt.Println(answer.Msg.Outcome, answer.Msg.Sessions)
	_, err = client.Push(ctx, connect.NewRequest(&pushv1.PushRequest{User: "alice"}))
	fmt.Println(connect.CodeOf(err))
	// Output:
	// OFFLINE 0
	// invalid_argument
}
