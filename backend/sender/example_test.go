package sender_test

import (
	"context"
	"fmt"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/backend/sender"
	"github.com/selvedge/selvedge/internal/discovery"
)

// A push from any process; with Consul, Membership is sender.Membership{Consul: &sender.Consul{}} in both.
func Example() {
	registry := discovery.NewMemory()
	member, err := backend.New(backend.Config{
		ID: "b1", Listen: "127.0.0.1:0", RPC: "127.0.0.1:0", Membership: backend.Membership{Memory: registry},
	})
	if err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- member.Run(ctx) }()
	defer func() { stop(); <-ended }()

	s, err := sender.New(sender.Config{Membership: sender.Membership{Memory: registry}})
	if err != nil {
		panic(err)
	}
	defer s.Close()
	result, err := s.Push(context.Background(), "alice", sender.Text("your order has left"))
	switch {
	case err != nil:
		fmt.Println("not certain:", err)
	case result.Sessions == 0:
		fmt.Println("alice is offline")
	default:
		fmt.Println("alice has it on", result.Sessions, "devices")
	}
	// Output: alice is offline
}
