// Package sender addresses users by id from any process inside: it hashes the id as everybody does, calls the member that owns
// the user, and reports honestly what became of the message.
//
//	s, err := sender.New(sender.Config{Membership: sender.Membership{Consul: &sender.Consul{}}})
//	defer s.Close()
//	result, err := s.Push(ctx, "alice", sender.Text("your order has left"))
//	// result.Sessions took it; 0: alice is offline; err: not certain, or not possible
//
// Any member's complete answer counts. A member that is away is passed over for the user's next one, and what is not settled is tried
// again, with one message id over all tries, until ctx ends: no session gets a message twice. Retries are at most a fifth of the
// calls and 10 a second, after a burst of 100. An error tells the last reason, the number of tries, and how many sessions were reached at least.
//
// Pushes of one sender to one user go out one after the other, in the order in which the calls began; up to 64 wait for the one under
// way. Broadcast keeps no order with them, nor do two senders with each other.
//
// A process that cannot see the members pushes through any backend's RPC port or an edge's admin port: see [Config.Via].
package sender
