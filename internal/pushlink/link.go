package pushlink

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/rpc"
)

// ErrBroken is the outcome of pushes that were under way on a stream that ended: whether the member got them is not known. Push again, with
// the same message id, on another link.
var ErrBroken = errors.New("the stream to the member broke")

// Link is the sender's end of a stream. It is safe for concurrent use.
type Link struct {
	ctx     context.Context
	cancel  context.CancelFunc
	room    chan struct{} // a value for each push under way
	arrived chan struct{} // has a value when something may be waiting

	mu      sync.Mutex
	last    uint64                               // call
	calls   map[uint64]chan<- *pushv1.PushAnswer // under way; each has room for its answer
	waiting []waiting                            // calls that have not been sent, oldest first
	ended   error                                // what ended the stream; nil while nothing has
	broken  chan struct{}                        // closed when ended is set

	began    time.Time     // zero of the clock that calls are sent by
	accepted chan struct{} // closed when the member has taken the stream
	outbox   *outbox       // under mu; nil until the member has taken an upgraded connection
	ping     bool          // under mu; an empty frame is due
	reading  reading       // of an upgraded connection
}

// Dial opens an upgraded connection to the member. An error that wraps [rpc.ErrNotUpgraded] says that the member is of an earlier release.
type Dial func(ctx context.Context) (net.Conn, *bufio.Reader, error)

type waiting struct {
	call    uint64
	encoded []byte // a PushRequest
}

// New makes a link, for one Run. Pushes wait until the stream is there.
func New() *Link {
	ctx, cancel := context.WithCancel(context.Background())
	return &Link{
		ctx: ctx, cancel: cancel, room: make(chan struct{}, MaxCalls), arrived: make(chan struct{}, 1),
		calls: make(map[uint64]chan<- *pushv1.PushAnswer), broken: make(chan struct{}),
		began: time.Now(), accepted: make(chan struct{}), reading: reading{begin: make(chan struct{}, 1)},
	}
}

// Close ends the stream, and with it the pushes under way. It does not wait for Run to return, which a member that does not read
// may keep until the connection is closed.
func (l *Link) Close() { l.cancel() }

// HasEnded tells whether the stream is over: open another.
func (l *Link) HasEnded() bool {
	select {
	case <-l.broken:
		return true
	default:
		return l.isOver()
	}
}

// Push makes one push and returns the member's answer. Its request has timeout_ms set, after which the member gives up; who
// stops waiting earlier does not take it back. An error wraps [ErrBroken] or ctx's, or says that the request cannot be encoded.
func (l *Link) Push(ctx context.Context, r *pushv1.PushRequest) (*pushv1.PushAnswer, error) {
	encoded, err := proto.Marshal(r) // here, so that what cannot be encoded fails alone
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	select {
	case l.room <- struct{}{}:
	case <-l.broken:
		return nil, explain(l.ended)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-l.room }()
	answer := make(chan *pushv1.PushAnswer, 1)
	call, reads, err := l.put(encoded, answer)
	if err != nil {
		return nil, err
	}
	if reads {
		l.readOwn(ctx, call)
	}
	select {
	case a := <-answer:
		return a, nil
	case <-l.broken:
	case <-ctx.Done():
		err = ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.calls, call)
	select {
	case a := <-answer: // came at the last moment
		return a, nil
	default:
	}
	if err == nil {
		err = explain(l.ended)
	}
	return nil, err
}

// put numbers a call and sends it, or hands it to the goroutine that does. Where the call is alone its push reads the answer, see readOwn.
func (l *Link) put(encoded []byte, answer chan<- *pushv1.PushAnswer) (call uint64, reads bool, err error) {
	l.mu.Lock()
	if l.ended != nil {
		defer l.mu.Unlock()
		return 0, false, explain(l.ended)
	}
	l.last++
	call = l.last
	l.calls[call] = answer
	l.waiting = append(l.waiting, waiting{call, encoded})
	out, crowded := l.outbox, len(l.calls) > 1
	if out != nil {
		reads = l.reading.take(call)
	}
	l.mu.Unlock()
	switch {
	case out == nil:
		notify(l.arrived)
	case crowded:
		out.flushSoon()
	default:
		out.flush()
	}
	return call, reads, nil
}

// Run is the link's life: a connection that dial opens, or, where dial is nil or the member is of an earlier release, a stream of the member that
// client calls. Whether there is one shows at the first push.
func (l *Link) Run(dial Dial, client pushv1.PushServiceClient) {
	err := fmt.Errorf("no dial: %w", rpc.ErrNotUpgraded)
	if dial != nil {
		err = l.runConn(dial)
	}
	if errors.Is(err, rpc.ErrNotUpgraded) {
		err = l.runStream(client)
	}
	l.mu.Lock()
	l.ended = err
	close(l.broken)
	clear(l.calls)
	l.waiting = nil
	l.mu.Unlock()
	l.cancel()
}

// explain makes of what ended a stream what one Push returns: each gets an error of its own, since reading one of Connect's can change it. The
// codes that say something of the member, rather than of the connection, stay.
func explain(err error) error {
	code := connect.CodeOf(err)
	switch {
	case errors.Is(err, io.EOF), code == connect.CodeCanceled, code == connect.CodeUnknown, code == connect.CodeInternal:
		code = connect.CodeUnavailable
	}
	return connect.NewError(code, fmt.Errorf("%w: %w", ErrBroken, err))
}

func (l *Link) answered(answers []*pushv1.PushAnswer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range answers {
		if answer := l.calls[a.Call]; answer != nil { // else nobody waits any more
			delete(l.calls, a.Call)
			answer <- a
		}
	}
}

// take appends the oldest calls that wait to batch, as many as go at once, encoded as a PushCalls. Those whose callers have given up are not sent.
func (l *Link) take(batch []byte) []byte {
	start := len(batch)
	sent := uint64(time.Since(l.began).Milliseconds())
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for calls := 0; n < len(l.waiting) && calls < maxBatch; n++ {
		w := l.waiting[n]
		if _, wanted := l.calls[w.call]; !wanted {
			continue
		}
		if calls > 0 && len(batch)-start+len(w.encoded)+callOverhead > maxBatchBytes {
			break
		}
		batch = appendCall(batch, w, sent)
		calls++
	}
	clear(l.waiting[:n])
	if l.waiting = l.waiting[n:]; len(l.waiting) == 0 {
		l.waiting = nil
	}
	return batch
}

// Numbers of fields in push.proto.
const (
	fieldCalls = 1 // PushCalls.calls
	fieldCall  = 1 // PushCall.call
	fieldPush  = 2 // PushCall.push
	fieldSent  = 3 // PushCall.sent_ms

	callOverhead = 40 // at most, bytes of a call besides its push
)

// appendCall appends the encoding of a PushCalls with one call in it: encodings of messages that stand one behind the other are
// that of the messages merged, of one with all calls.
func appendCall(to []byte, w waiting, sentMs uint64) []byte {
	size := protowire.SizeTag(fieldCall) + protowire.SizeVarint(w.call) + protowire.SizeTag(fieldPush) + protowire.SizeBytes(len(w.encoded)) +
		protowire.SizeTag(fieldSent) + protowire.SizeVarint(sentMs)
	to = protowire.AppendTag(to, fieldCalls, protowire.BytesType)
	to = protowire.AppendVarint(to, uint64(size))
	to = protowire.AppendTag(to, fieldCall, protowire.VarintType)
	to = protowire.AppendVarint(to, w.call)
	to = protowire.AppendTag(to, fieldPush, protowire.BytesType)
	to = protowire.AppendBytes(to, w.encoded)
	to = protowire.AppendTag(to, fieldSent, protowire.VarintType)
	return protowire.AppendVarint(to, sentMs)
}
