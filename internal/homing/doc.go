// Package homing decides who must hear of a push so that its outcome is the truth. It is pure: views and the hop count in, a
// plan out; no I/O, no clock, no goroutine.
//
//	plan := homing.View{Ring: ring, Self: "b1", Peers: peers}.Route("alice", hops)
//
// A push stops at most twice before every holder has heard of it: at the member a sender happened to pick, and at the user's
// home, the owner of the user on the ring of that member's view. What the home may conclude without asking anybody, and what
// not yet, stands in DESIGN.md.
package homing
