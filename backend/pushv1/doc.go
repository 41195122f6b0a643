// Package pushv1 is the RPC contract between senders and a service: push.proto and what is generated from it.
//
// The service answers gRPC, gRPC-Web and Connect, so that a shell needs no more than
//
//	curl -H 'Content-Type: application/json' -d '{"user":"alice","text":"hi"}' http://HOST:RPC/selvedge.push.v1.PushService/Push
//
// Go programs use package backend/sender instead, which finds the right member by itself.
package pushv1

import "time"

// DefaultTimeout is what a call whose request says timeout_ms 0 may take.
const DefaultTimeout = 5 * time.Second
