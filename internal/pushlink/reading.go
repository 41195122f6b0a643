package pushlink

import (
	"context"
	"errors"
	"os"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/selvedge/selvedge/backend/pushv1"
)

// quietAfter is for how long nobody pushes before the link's goroutine reads again: it finds out that a member is gone, and pings.
const quietAfter = 500 * time.Millisecond

// reading is who reads an upgraded connection. A push that is alone reads its own answer: told of it by another goroutine it would come later by the
// waking of a thread, which Go does for each goroutine that becomes ready, and which was a fifth of what a lone push took. As soon as there are
// several the link's goroutine reads for all, and it does while there are none.
type reading struct {
	frames frames        // who reads has it
	conn   *watched      // below frames
	begin  chan struct{} // has a value when the link's goroutine is to read; holds one

	// Under the link's mu.
	attended    bool   // somebody reads
	by          uint64 // the call whose push reads; 0: the link's goroutine does, or nobody
	interrupted bool   // the deadline of conn has passed for it
	failed      error  // what the reading of a push ended with
}

// take gives the reading to the push of call, if nobody reads; mu is held.
func (r *reading) take(call uint64) bool {
	if r.attended {
		return false
	}
	r.attended, r.by = true, call
	return true
}

// pass gives the reading to the link's goroutine; mu is held.
func (r *reading) pass(err error) {
	r.attended, r.by, r.failed = true, 0, err
	r.begin <- struct{}{}
}

// read reads one frame and gives the answers in it to those who wait. Only who has the reading calls it.
func (l *Link) read() error {
	body, err := l.reading.frames.next()
	if err != nil {
		return err
	}
	message := new(pushv1.PushAnswers)
	if err := proto.Unmarshal(body, message); err != nil {
		return err
	}
	l.answered(message.Answers)
	return nil
}

// readOwn reads until the answer to call has come, ctx ends or the connection breaks.
func (l *Link) readOwn(ctx context.Context, call uint64) {
	r := &l.reading
	defer context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if r.by == call {
			r.interrupted = true
			_ = r.conn.SetReadDeadline(time.Unix(1, 0)) // an error: it is closed, which ends the reading too
		}
	})()
	for {
		err := l.read()
		l.mu.Lock()
		_, waits := l.calls[call]
		if waits && err == nil {
			l.mu.Unlock()
			continue
		}
		switch {
		case r.interrupted && errors.Is(err, os.ErrDeadlineExceeded):
			r.pass(nil)
		case err != nil, r.interrupted, len(l.calls) > 0:
			r.pass(err)
		default:
			r.attended, r.by = false, 0
		}
		r.interrupted = false
		l.mu.Unlock()
		return
	}
}

// awaitTurn returns when the link's goroutine is to read. While pushes wait for answers it goes on; else the next one may read its own.
func (l *Link) awaitTurn() error {
	r := &l.reading
	l.mu.Lock()
	if len(l.calls) > 0 {
		l.mu.Unlock()
		return nil
	}
	if err := r.conn.lend(); err != nil {
		l.mu.Unlock()
		return err
	}
	r.attended = false
	last := l.last
	l.mu.Unlock()
	for quiet := time.NewTimer(quietAfter); ; quiet.Reset(quietAfter) {
		select {
		case <-r.begin:
			quiet.Stop()
			l.mu.Lock()
			err := r.failed
			l.mu.Unlock()
			if err != nil {
				return err
			}
			return r.conn.watch()
		case <-quiet.C:
			l.mu.Lock()
			isQuiet := last == l.last && r.take(0)
			last = l.last
			l.mu.Unlock()
			if isQuiet {
				return r.conn.watch()
			}
		case <-l.ctx.Done():
			return l.ctx.Err()
		}
	}
}

// isOver tells whether the member has ended the connection while nobody read it.
func (l *Link) isOver() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.outbox == nil || l.reading.attended || !l.reading.conn.isOver() {
		return false
	}
	l.reading.pass(nil) // finds out how
	return true
}
