// Package tunnel joins two connections and moves bytes between them until both have ended.
//
//	relay, err := tunnel.NewRelay(tunnel.Config{Reactor: r})
//	t, err := relay.Join(
//		tunnel.End{Conn: client, Early: pipelined},
//		tunnel.End{Conn: backend, Early: after101},
//		func(s tunnel.Summary) { closes.WithLabelValues(s.Reason.String()).Inc() })
//	...
//	t.Close(tunnel.Drained)
//
// # Contract
//
// Join takes both connections, also when it fails. Every byte arrives, in order and once, those in End.Early first. While a
// destination takes no more its source is not read, so a tunnel holds at most 64 KiB per direction (and what Join was
// given) beside the kernel's socket buffers. The end of a stream is passed on as one (a FIN) after its last byte. A reset,
// or a peer found dead, is passed on as a reset at once; as on a direct connection, bytes that the receiver has not taken
// by then may be lost.
//
// [Tunnel.Close] cuts: it stops taking bytes, writes what the tunnel holds, sends a FIN both ways and waits up to 2 s for
// the peers to end their streams, discarding what they still send. Closing without that would turn the FIN into a reset,
// which destroys bytes on their way.
//
// onClose is called exactly once for each Join that returned no error, after the descriptors are closed, with the typed
// [Reason]. It runs on the tunnel's loop and must not block.
//
// # Cost and limits
//
// Two TCP connections become two descriptors on the reactor: no goroutine, no buffer, no pipe while idle; 224 bytes of
// memory, the reactor's share included. A *tls.Conn on a [Wire] is on the reactor too, and costs what crypto/tls keeps, some
// 7 KiB. Any other connection that lives in user space takes two goroutines per tunnel with a 2 KiB buffer each. Bulk is spliced through pipes that are borrowed while bytes are in them, at most [MaxPipes] of them
// per relay, two descriptors each.
//
// DESIGN.md has the reasons, the order of events and the budget.
package tunnel
