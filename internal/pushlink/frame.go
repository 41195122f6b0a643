package pushlink

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"
)

// Protocol names what goes over an upgraded connection: frames, each a length in four bytes, the highest first, and an encoded message, PushCalls
// one way and PushAnswers the other. The member's first frame is empty: it has taken the connection. An empty frame of the sender is answered by one.
const Protocol = "selvedge-pushes"

const (
	frameHead = 4
	maxFrame  = 4 << 20 // above what a batch can be

	readBuffer = 16 << 10 // is read at once; what a larger frame has more is read into its place
)

// endFrame writes the length in front of the message behind start, whose head was left free.
func endFrame(frame []byte, start int) {
	binary.BigEndian.PutUint32(frame[start:], uint32(len(frame)-start-frameHead))
}

// readOn reads what is buffered in in, and goes on with conn.
func readOn(in *bufio.Reader, conn io.Reader) *bufio.Reader {
	early, _ := in.Peek(in.Buffered()) // what is buffered is there
	return bufio.NewReaderSize(io.MultiReader(bytes.NewReader(bytes.Clone(early)), conn), readBuffer)
}

// frames reads messages one behind the other. One that a deadline interrupts is read on.
type frames struct {
	in     *bufio.Reader
	body   []byte // of the message that is read; it grows
	have   int    // of it
	inside bool   // its head has been read
}

// next returns the next message, which is good until it is called again.
func (f *frames) next() ([]byte, error) {
	if !f.inside {
		head, err := f.in.Peek(frameHead)
		if err != nil {
			if len(head) > 0 && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		size := int(binary.BigEndian.Uint32(head))
		if size > maxFrame {
			return nil, fmt.Errorf("a frame of %d bytes; at most %d are", size, maxFrame)
		}
		_, _ = f.in.Discard(frameHead) // they are there
		f.body, f.have, f.inside = slices.Grow(f.body[:0], size)[:size], 0, true
	}
	for f.have < len(f.body) {
		n, err := f.in.Read(f.body[f.have:])
		f.have += n
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, err
		case err != nil:
			return nil, io.ErrUnexpectedEOF
		}
	}
	f.inside = false
	return f.body, nil
}

// A connection from which nothing has come is pinged, and given up where nothing comes then, as those of HTTP/2 are.
const (
	pingAfter   = 5 * time.Second // to twice as long
	pingTimeout = 3 * time.Second
)

var errSilent = errors.New("the member does not answer pings")

// watched reads from a connection and finds out a peer that hangs.
type watched struct {
	net.Conn
	ping           func()
	after, timeout time.Duration
	heard, asked   bool
	lent           bool // to one who has a deadline of his own
}

// watch begins to look after the peer.
func (w *watched) watch() error {
	w.heard, w.asked, w.lent = true, false, false
	return w.Conn.SetReadDeadline(time.Now().Add(w.after))
}

// lend has Read return at its deadline; there is none.
func (w *watched) lend() error {
	w.lent = true
	return w.Conn.SetReadDeadline(time.Time{})
}

// isOver tells whether the peer has ended the connection, as far as that can be seen without reading.
func (w *watched) isOver() bool {
	q, can := w.Conn.(quick)
	return can && q.isOver()
}

func (w *watched) Read(p []byte) (int, error) {
	for {
		n, err := w.Conn.Read(p)
		if n > 0 {
			w.heard = true
		}
		if n > 0 || w.lent || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		wait := w.after
		switch {
		case w.heard:
			w.heard, w.asked = false, false
		case !w.asked:
			w.asked, wait = true, w.timeout
			w.ping()
		default:
			return 0, errSilent
		}
		if err := w.Conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return 0, err
		}
	}
}
