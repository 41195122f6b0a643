package peerlink

import (
	"container/list"
	"context"
	"runtime"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	maxWaiting      = 4096     // messages in an outbox
	maxWaitingBytes = 16 << 20 // in an outbox; the last one put may exceed it

	maxBatch      = 256       // messages sent at once
	maxBatchBytes = 256 << 10 // sent at once; a single larger one goes alone
)

// message is a Request or a Reply, encoded but for its call. The goroutine that has it to send encodes it: what cannot be encoded
// fails there, alone, and not with the batch that it would be in.
type message struct {
	call    uint64
	encoded []byte
	element *list.Element // in the outbox; nil: not there
}

// outbox holds what waits to be sent on a stream, oldest first, requests at the one end and replies at the other. One goroutine
// sends.
type outbox struct {
	arrived chan struct{} // has a value when something may be waiting
	left    chan struct{} // has a value when a batch has left

	mu      sync.Mutex
	waiting list.List // of *message
	bytes   int       // of what is waiting
}

func newOutbox() *outbox {
	return &outbox{arrived: make(chan struct{}, 1), left: make(chan struct{}, 1)}
}

// offer puts m at the end, unless the outbox is full.
func (o *outbox) offer(m *message) bool {
	o.mu.Lock()
	full := o.full()
	if !full {
		o.add(m)
	}
	o.mu.Unlock()
	notify(o.arrived)
	return !full
}

// put puts m at the end even of a full outbox.
func (o *outbox) put(m *message) {
	o.mu.Lock()
	o.add(m)
	o.mu.Unlock()
	notify(o.arrived)
}

// remove takes m out, if it is still there.
func (o *outbox) remove(m *message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if m.element != nil {
		o.unlink(m)
	}
}

// awaitRoom waits until the outbox is not full, or ctx ends, which it reports as false.
func (o *outbox) awaitRoom(ctx context.Context) bool {
	for ctx.Err() == nil {
		o.mu.Lock()
		full := o.full()
		o.mu.Unlock()
		if !full {
			return true
		}
		select {
		case <-o.left:
		case <-ctx.Done():
		}
	}
	return false
}

// deliver sends what waits and what comes, until ctx ends or send fails. send gets the encoding of a Requests or a Replies, and does
// not keep it.
func (o *outbox) deliver(ctx context.Context, send func(encoded []byte) error) {
	var batch []*message
	var encoded []byte
	for {
		if batch = o.take(batch[:0]); len(batch) == 0 {
			select {
			case <-o.arrived:
				runtime.Gosched() // lets those that are about to put something do so: larger batches; see DESIGN.md
				continue
			case <-ctx.Done():
				return
			}
		}
		notify(o.left)
		encoded = appendBatch(encoded[:0], batch)
		clear(batch) // while this waits for a slow peer, nothing is held twice
		if send(encoded) != nil {
			return
		}
		if cap(encoded) > 2*maxBatchBytes {
			encoded = nil
		}
	}
}

// take moves the oldest messages to the end of batch, as many as go at once.
func (o *outbox) take(batch []*message) []*message {
	o.mu.Lock()
	defer o.mu.Unlock()
	bytes := 0
	for e := o.waiting.Front(); e != nil && len(batch) < maxBatch; e = o.waiting.Front() {
		m := e.Value.(*message)
		bytes += len(m.encoded)
		if bytes > maxBatchBytes && len(batch) > 0 {
			break
		}
		o.unlink(m)
		batch = append(batch, m)
	}
	return batch
}

// With mu held:

func (o *outbox) full() bool { return o.waiting.Len() >= maxWaiting || o.bytes >= maxWaitingBytes }

func (o *outbox) add(m *message) {
	m.element = o.waiting.PushBack(m)
	o.bytes += len(m.encoded)
}

func (o *outbox) unlink(m *message) {
	o.waiting.Remove(m.element)
	m.element = nil
	o.bytes -= len(m.encoded)
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it has a value already
	}
}

// Numbers of fields that peer.proto gives to requests and replies alike.
const (
	fieldCall     = 1 // Request.call, Reply.call
	fieldMessages = 1 // Requests.requests, Replies.replies
)

// appendBatch appends the encoding of a Requests or a Replies with the batch in it.
func appendBatch(to []byte, batch []*message) []byte {
	for _, m := range batch {
		size := len(m.encoded) + protowire.SizeTag(fieldCall) + protowire.SizeVarint(m.call)
		to = protowire.AppendTag(to, fieldMessages, protowire.BytesType)
		to = protowire.AppendVarint(to, uint64(size))
		to = append(to, m.encoded...)
		to = protowire.AppendTag(to, fieldCall, protowire.VarintType) // of a field that comes twice the last counts
		to = protowire.AppendVarint(to, m.call)
	}
	return to
}
