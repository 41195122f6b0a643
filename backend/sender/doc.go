// Package sender addresses users by id from any process inside: it hashes the id as everybody does, calls the member that owns
// the user, and reports honestly what became of the message.
//
//	s, err := sender.New(sender.Config{Membership: sender.Membership{Consul: &sender.Consul{}}})
//	defer s.Close()
//	result, err := s.Push(ctx, "alice", sender.Text("your order has left"))
//	// result.Sessions took it; 0: alice is offline; err: not certain, or not possible
//
// A member that is away is passed over for the user's next one, and what is not settled is tried again, with one message id over
// all tries, until ctx ends: no session gets a message twice. A process that cannot see the members pushes through any
// backend's RPC port or an edge's admin port: see [Config.Via].
package sender
