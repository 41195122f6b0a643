// Package homing is the ownership protocol: how the members of a service find every session of a user while the ring changes, and
// say nothing that is not true. It is pure: events go in, effects come out; no I/O, no clock, no goroutine. One [Node] is one
// incarnation of one member.
//
//	n := homing.New(cfg)
//	n.Start(now)
//	for _, e := range n.Effects() { ... } // after every call: send, deliver, answer the upgrade
//
// The caller makes one call at a time and carries out the effects in order. Times are readings of one clock of the process, which
// must not go back and must run through suspension; a call's now is read right before it.
//
// A push is a [Question]: [Node.Ask] starts it, the effects name whom to ask, and a [Settled] effect ends it. A session waits for
// [Opened] between [Node.Open] and its 101. The rules, their reasons and what shows them stand in DESIGN.md.
package homing
