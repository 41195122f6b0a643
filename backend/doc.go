// Package backend is what a chat, game or notification service imports to hold its users' WebSocket sessions and to be pushed
// to by user id.
//
//	b, err := backend.New(backend.Config{
//		Membership:     backend.Membership{Consul: &backend.Consul{}},
//		EdgeSecretFile: "/etc/selvedge/secret", // as the edges have it
//		OnMessage: func(s *backend.Session, m backend.Message) {
//			b.Push(context.Background(), "bob", m) // wherever bob is
//		},
//	})
//	err = b.Run(ctx) // until ctx ends, then drains
//
// A member registers itself under Config.Service, takes the sessions that edges send it, and owns the users whose ids hash to it.
// Sessions have no goroutine; handlers run on goroutines that live while there is something to handle, in order per session.
//
// Push reports how many sessions took the message, or that the user is offline, or an error that says to repeat it; a repeat
// with the same message id reaches no session twice. What this package can and cannot promise while members come and go stands in
// DESIGN.md.
//
// Whose requests they are is an edge's word. Off loopback it must be signed ([Config.EdgeSecretFile]) or come from a network where only
// edges are ([Config.TrustedEdges]); a client that connects by itself shows a ticket that an edge gave it ([Config.PublicURL]).
package backend
