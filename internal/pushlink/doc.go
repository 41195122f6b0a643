// Package pushlink carries pushes between a sender and a member over one stream: many at once, in batches, answered in any order.
//
//	link := pushlink.New()
//	go link.Run(client)                       // holds one stream until it breaks, or is closed
//	answer, err := link.Push(ctx, request)    // err: the stream broke; what the member says is in the answer
//
//	err := pushlink.Serve(ctx, stream, begin) // the member's end: begin takes batches of pushes
//
// No timer makes batches: what has gathered while the one before was on its way out goes together, and a lone push leaves at once. At most
// [MaxCalls] pushes are under way on a stream; more wait at the sender for room, until their contexts end. A member that gets more does not
// read on, so that a sender of another make waits, too.
package pushlink

// MaxCalls is how many pushes may be under way on one stream, answers that have not left included.
const MaxCalls = 4096

const (
	maxBatch      = 256       // pushes or answers in one message
	maxBatchBytes = 256 << 10 // of pushes in one message; a larger one goes alone
)
