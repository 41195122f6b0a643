// Package peerv1 is the RPC contract between the members of one service: peer.proto and what is generated from it.
//
// It shares a listener with the push service and has a credential of its own. Every request names its caller and the process
// it is meant for, with incarnations, so that a reused address or a process that others hold dead shows at once.
package peerv1
