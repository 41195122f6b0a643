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

// readFrame reads one message into buffer, which may have to grow.
func readFrame(in *bufio.Reader, buffer []byte) ([]byte, error) {
	head, err := in.Peek(frameHead)
	if err != nil {
		if len(head) > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return buffer, err
	}
	size := int(binary.BigEndian.Uint32(head))
	if size > maxFrame {
		return buffer, fmt.Errorf("a frame of %d bytes; at most %d are", size, maxFrame)
	}
	_, _ = in.Discard(frameHead) // they are there
	buffer = slices.Grow(buffer[:0], size)[:size]
	if _, err := io.ReadFull(in, buffer); err != nil {
		return buffer, io.ErrUnexpectedEOF
	}
	return buffer, nil
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
}

func (w *watched) Read(p []byte) (int, error) {
	for {
		n, err := w.Conn.Read(p)
		if n > 0 {
			w.heard = true
		}
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
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
