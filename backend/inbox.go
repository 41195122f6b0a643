package backend

// inboxMessages is how many messages are read ahead of a slow handler.
const inboxMessages = 64

// received is a message from the client.
type received struct {
	Message
	deflated bool // Data is as it came
}

// inbox holds what was read ahead of the service's handlers. It is bounded by inboxMessages and Config.MessageBytes: beyond, the
// socket is not read. One read may overshoot. A nil inbox is an empty one.
type inbox struct {
	messages []received
	bytes    int
	room     [1]received // of messages, for one that waits alone
}

func newInbox() *inbox {
	in := new(inbox)
	in.messages = in.room[:0]
	return in
}

func (in *inbox) isEmpty() bool { return in == nil || len(in.messages) == 0 }

func (in *inbox) isFull(limit int) bool {
	return in != nil && (len(in.messages) >= inboxMessages || in.bytes >= limit)
}

// hasRoom tells whether it is worth to read on.
func (in *inbox) hasRoom(limit int) bool {
	return len(in.messages) < inboxMessages/2 && in.bytes < limit
}

func (in *inbox) push(m received) {
	in.messages = append(in.messages, m)
	in.bytes += len(m.Data)
}

// pop takes the oldest message out; there must be one.
func (in *inbox) pop() received {
	m := in.messages[0]
	in.messages[0] = received{}
	in.messages = in.messages[1:]
	in.bytes -= len(m.Data)
	return m
}
