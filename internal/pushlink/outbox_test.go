package pushlink

import (
	"net"
	"testing"
)

// What is added just when the one who writes has seen that there is nothing more is not left lying.
func TestFlushWhileAnotherWrites(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	var o *outbox
	waiting, looks, frames := false, 0, 0
	o = newOutbox(ours, func(buffer []byte) []byte {
		looks++
		if looks == 1 { // nothing yet; and before the caller hears of that, another adds something and leaves it to him
			waiting = true
			o.flush()
			return buffer
		}
		if waiting {
			waiting = false
			frames++
			return append(buffer, 1)
		}
		return buffer
	})
	o.flush()
	if frames != 1 {
		t.Errorf("%d frames after %d looks; want the one that was added", frames, looks)
	}
	if rest := <-o.rest; len(rest) != 1 { // a pipe has no descriptor
		t.Errorf("%d bytes are left to run", len(rest))
	}
}
