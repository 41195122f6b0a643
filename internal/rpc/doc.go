// Package rpc is the transport under the push and peer services: HTTP/2 without TLS (and HTTP/1.1, for JSON by curl) with bearer
// credentials.
//
//	caller, closeAll := rpc.Client(token)
//	client := pushv1.NewPushServiceClient(caller, "http://10.0.0.1:9100")
//	server := rpc.Server(handler)
//
// A peer that hangs is found out: a connection that shows no sign of life for a few seconds is pinged, and given up where no
// answer comes. Calls carry their own deadlines.
package rpc
