// Package edge is the front door of services with long-lived connections: it takes WebSocket upgrades and plain HTTP, finds out
// whose request it is, and brings it to the member of the service that the user's id hashes to.
//
//	e, err := edge.New(edge.Config{
//		Listen:     []edge.Listener{{Addr: ":8080"}},
//		Routes:     []edge.Route{{Path: "/ws", Service: "chat", Key: "query:user"}},
//		Membership: edge.Membership{Backends: "b1=10.0.0.1:9000,b2=10.0.0.2:9000"},
//	})
//	if err != nil { ... }        // says which field is wrong and what would be right
//	err = e.Run(ctx)             // until ctx ends; then drains, and returns nil when done
//
// # What it promises
//
//   - All requests and sessions of a user reach the same member, as long as that member is there. Each service has a ring of its own,
//     so that two services behind one edge never mix.
//   - A member that cannot be reached, hangs up, or says that it is joining, draining, full or stopped is passed over: its users go to its
//     successor on the ring at once, without waiting for the registry to notice. One that refuses connections or does not answer
//     in time is tried last for a while, 1 s at first. The backend that gets the session is told (X-Selvedge-Passed-Over).
//   - Sessions outlive every change of membership that does not take their backend away, unless [ServiceConfig.OnMove] says otherwise.
//   - A client's connection is taken out of HTTP only when a backend has answered a correct 101. Until then, whatever goes wrong is an
//     ordinary HTTP answer with a JSON body {"error": "...", "request_id": "..."}.
//   - After the 101 a session is two descriptors on a reactor. No goroutine belongs to it, and every byte of either side
//     reaches the other: also what was sent in the same packet as the upgrade, or as the 101.
//   - What the backend reads in X-Selvedge-User was put there by the edge. No spelling of it that a client sends gets through.
//
// # Limits
//
// HTTP/1.1 on both sides, without TLS; listeners can be handed in. Sessions are limited by the process's descriptors (two per
// session, an eighth kept in reserve); above that an upgrade is answered 503 with Retry-After. A head is limited to
// [Config.HeaderBytes], a backend's to 64 KiB, the body of a backend's refusal of an upgrade to 1 MiB.
//
// Upgrades begin on the reactor where the listener is a TCP socket and the member's address is no name. Others, and plain HTTP, are served by
// net/http; selvedge_edge_handovers_total counts what came to it from the reactor.
//
// The admin listener serves /, /metrics, /healthz, /readyz, /debug/pprof/ and [Config.AdminHandler].
package edge
