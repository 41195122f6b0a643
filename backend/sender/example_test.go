package sender_test

import (
	"context"
	"fmt"
	"time"

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

// record is what a client of Kafka hands out; one of MQTT has no partition and offset, and the publisher's own id must be in the payload.
type record struct {
	topic             string
	partition, offset int64
	user, text        string
}

// A consumer of a broker that `selvedge bridge` does not read, such as Kafka: the id is the record's place, so that no session gets it
// twice, and the offset is committed when the outcome is certain.
func Example_consumer() {
	s, err := sender.New(sender.Config{Via: "http://127.0.0.1:9100"})
	if err != nil {
		panic(err)
	}
	defer s.Close()
	poll := func() (records []record) { return nil } // of your client
	commit := func(record) {}                        // of your client, after each or after some
	for _, r := range poll() {
		m := sender.Message{Data: []byte(r.text), ID: fmt.Sprintf("%s-%d-%d", r.topic, r.partition, r.offset)}
		for {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			_, err := s.Push(ctx, r.user, m)
			cancel()
			if err == nil {
				break // taken by every session, or by none: then the user is offline
			}
			time.Sleep(time.Second) // not certain; after some tries put it aside instead
		}
		commit(r)
	}
	// Output:
}
