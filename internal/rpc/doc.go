// Package rpc is the transport under the push and peer services: HTTP/2, with TLS or without (and HTTP/1.1, for JSON by curl), with
// bearer credentials or certificates.
//
//	caller, closeAll := rpc.Client(token, nil)
//	client := pushv1.NewPushServiceClient(caller, "http://10.0.0.1:9100")
//	server := rpc.Server(handler)
//
//	secure, err := rpc.Credentials{CA: "ca.pem", Cert: "c.pem", Key: "k.pem"}.Follow()
//	caller, closeAll := rpc.Client("", secure) // for https URLs
//
// A peer that hangs is found out: a connection that shows no sign of life for a few seconds is pinged, and given up where no
// answer comes. Calls carry their own deadlines.
package rpc
