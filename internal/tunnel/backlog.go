//go:build unix

package tunnel

import (
	"github.com/selvedge/selvedge/internal/reactor"
)

const (
	// bufferSize is the capacity of a pooled buffer and of a pipe, and what a loop's scratch holds, in bytes.
	bufferSize = 64 << 10
	// smallBacklog is up to what size leftover bytes get memory of their own size instead of a pooled buffer.
	smallBacklog = 4 << 10
)

// backlog is the bytes that one direction of a tunnel has taken from its source and not yet written: in memory or in a
// pipe. A direction has one only while there are such bytes, and reads nothing meanwhile.
type backlog struct {
	bytes  []byte   // in memory: what is left
	buffer []byte   // the pooled buffer under bytes, if any
	pipe   [2]int32 // descriptors to read from and write to; 0, 0 for none
	piped  int      // bytes in the pipe
}

// hold keeps a copy of p, at most bufferSize bytes.
func (s *shard) hold(p []byte) *backlog {
	if len(p) <= smallBacklog {
		return &backlog{bytes: append([]byte(nil), p...)}
	}
	var b *backlog
	if n := len(s.buffers); n > 0 {
		b = s.buffers[n-1]
		s.buffers = s.buffers[:n-1]
	} else {
		b = &backlog{buffer: make([]byte, bufferSize)}
	}
	b.bytes = b.buffer[:copy(b.buffer, p)]
	return b
}

// drop takes back a backlog, empty or not. A pipe with bytes in it is of no use to anyone else.
func (s *shard) drop(b *backlog) {
	switch {
	case b == nil:
	case b.pipe != [2]int32{}:
		if b.piped == 0 && len(s.pipes) < keepSpare && !s.closed {
			s.pipes = append(s.pipes, b)
		} else {
			s.closePipe(b)
		}
	case b.buffer != nil:
		b.bytes = nil
		if len(s.buffers) < keepSpare && !s.closed {
			s.buffers = append(s.buffers, b)
		}
	}
}

func (b *backlog) empty() bool { return len(b.bytes) == 0 && b.piped == 0 }

// next takes what is to be encrypted next out of a backlog in memory.
func (b *backlog) next() []byte {
	p := b.bytes[:min(len(b.bytes), bufferSize)]
	b.bytes = b.bytes[len(p):]
	return p
}

// writeTo writes once. spliced says through what the bytes went.
func (b *backlog) writeTo(fd int) (n int, spliced bool, err error) {
	if b.piped > 0 {
		n, err = b.spliceTo(fd)
		return n, true, err
	}
	n, err = reactor.Write(fd, b.bytes[:min(len(b.bytes), bufferSize)])
	b.bytes = b.bytes[n:]
	return n, false, err
}
