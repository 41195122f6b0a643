// Package bridge takes messages from a broker and pushes each to the users that it names: the way over for services that fan out by
// RabbitMQ, Redis or NATS today. Publishers stay as they are, the bridge stands beside the broker, and the consumers in every server go.
//
//	b, err := bridge.New(bridge.Config{AMQP: "amqp://localhost", Queue: "chat", User: "json:to", Sender: ...})
//	err = b.Run(ctx) // until ctx ends, then it finishes what it has taken
//
// A message is acknowledged once its outcome is certain, where the broker knows acknowledgements: RabbitMQ, Redis streams and JetStream.
// From those every message is pushed at least once whatever is killed, and a redelivery carries the message id that it had before,
// so that no session gets it twice within the minute that backends remember. Redis pub/sub and core NATS forget a message as they
// send it: what is published while no bridge listens, or is in a bridge that is killed, is lost.
//
// Messages of one user are pushed one after the other, in the order in which this process got them. DESIGN.md says what is promised for each
// broker, where messages go that cannot be delivered, and why.
package bridge
