// Package peerlink carries requests between members: one stream from each member to each other one that it speaks to, on a connection
// of its own, and on it batches of what was waiting when the last batch was sent.
//
//	links := peerlink.New(peerlink.Config{Token: token, OnLost: look})
//	reply, err := links.Call(ctx, "10.0.0.2:9100", request)
//
//	path, handler := peerlink.NewHandler(serve)
//	mux.Handle(path, admin.RequireToken(token, handler))
//
// Requests are handed to the callee in the order in which Call took them, as long as the stream lives; replies come in any order.
// Nothing is sent twice: a broken stream is an error for whoever waits on it, and the next Call opens another. What an error
// says about the other process is part of the contract: see ErrRefused.
//
// Every queue has a bound; see DESIGN.md for these and for what batches save.
package peerlink
