package pushlink

import (
	"context"
	"net"
	"runtime"
	"sync"
	"syscall"
)

// outbox writes frames to a connection in the goroutine that has something to send, as long as the socket takes them: no other has to be woken. What
// others add meanwhile goes with it. A socket that is full is left to run, so that flush never waits for the peer.
type outbox struct {
	conn net.Conn
	raw  syscall.RawConn // nil: all is left to run
	// next appends the next frame to buffer; it returns the buffer as it was where there is none.
	next func(buffer []byte) []byte
	rest chan []byte // for run, which then writes on; holds one

	mu    sync.Mutex
	busy  bool // somebody writes
	again bool // and must look once more

	buffer []byte // who is busy has it
}

func newOutbox(conn net.Conn, next func([]byte) []byte) *outbox {
	o := &outbox{conn: conn, next: next, rest: make(chan []byte, 1)}
	if c, ok := conn.(syscall.Conn); ok {
		o.raw, _ = c.SyscallConn() // nil on errors
	}
	return o
}

// flush sends what there is, or sees to it that it is sent.
func (o *outbox) flush() {
	if o.take() {
		o.write()
	}
}

// flushSoon is flush after all goroutines that are ready have run: what they are about to add goes along, in one frame. It costs the waking
// of a thread where there are none.
func (o *outbox) flushSoon() {
	if o.take() {
		runtime.Gosched()
		o.write()
	}
}

// take makes the caller the one who writes, unless somebody does, who then looks once more.
func (o *outbox) take() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.again = o.busy
	if o.busy {
		return false
	}
	o.busy = true
	return true
}

// write is the turn of who is busy.
func (o *outbox) write() {
	for {
		o.buffer = o.next(o.buffer[:0])
		if len(o.buffer) > 0 {
			if n := o.try(o.buffer); n < len(o.buffer) {
				o.rest <- o.buffer[n:]
				return
			}
			continue
		}
		o.mu.Lock()
		if !o.again {
			o.busy = false
			o.mu.Unlock()
			return
		}
		o.again = false
		o.mu.Unlock()
	}
}

// try writes what the socket takes at once. What is wrong with it run learns.
func (o *outbox) try(frame []byte) (n int) {
	if o.raw == nil {
		return 0
	}
	_ = o.raw.Write(func(fd uintptr) bool {
		n = max(writeNow(fd, frame), 0)
		return true
	})
	return n
}

// run writes what sockets that are full did not take, until ctx ends, and closes the connection.
func (o *outbox) run(ctx context.Context) {
	defer context.AfterFunc(ctx, func() { _ = o.conn.Close() })()
	defer o.conn.Close()
	for {
		select {
		case rest := <-o.rest:
			if _, err := o.conn.Write(rest); err != nil {
				return // who reads says why
			}
			o.write()
		case <-ctx.Done():
			return
		}
	}
}
