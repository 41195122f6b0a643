// Package pushlink carries pushes between a sender and a member over one connection: many at once, in batches, answered in any order.
//
//	link := pushlink.New()
//	go link.Run(dial, client)                         // holds one connection until it breaks, or is closed
//	answer, err := link.Push(ctx, request)            // err: the connection broke; what the member says is in the answer
//
//	err := pushlink.ServeConn(ctx, conn, in, begin)   // the member's end: begin takes batches of pushes
//	err := pushlink.Serve(ctx, stream, begin)         // the same for senders of other makes, and earlier releases
//
// The connection begins with an HTTP/1.1 upgrade ([Protocol]) on the RPC port and carries frames from then on. Where the member does not know that, the
// stream Pipeline of the push service carries the same messages by HTTP/2. The goroutine that pushes writes to the socket itself, and reads the answer
// where it is alone; the one that reads pushes at the member answers them: a lone push wakes nobody but the two processes that it concerns.
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
