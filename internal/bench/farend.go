package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/gobwas/ws"

	"github.com/selvedge/selvedge/internal/reactor"
)

// farEnd is the backend of [Proxies]: after the 101 it does as little as can be done. At /echo it sends bytes back as they come; at /stream
// it reads a number of 8 bytes and sends so many bytes, as fast as they are taken. Proxies do not look into frames, so there are none.
type farEnd struct {
	loop   *reactor.Loop
	fd     int
	reg    reactor.Registration
	stream bool
	unsent []byte // echo that was not taken; nothing is read while there is any
	left   uint64 // of the stream
}

// serveFarEnds accepts until the process ends.
func serveFarEnds(out io.Writer) error {
	loops, err := reactor.New(1)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, `{"msg":%q,"addr":%q}`+"\n", farEndUp, ln.Addr())
	for {
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			if err := beginFarEnd(loops.Loop(), conn); err != nil {
				conn.Close()
			}
		}()
	}
}

const farEndUp = "far end is listening"

func beginFarEnd(loop *reactor.Loop, conn net.Conn) error {
	f := &farEnd{loop: loop}
	upgrade := ws.Upgrader{OnRequest: func(uri []byte) error {
		f.stream = strings.HasPrefix(string(uri), "/stream")
		return nil
	}}
	if _, err := upgrade.Upgrade(conn); err != nil {
		return err
	}
	var err error
	if f.fd, err = reactor.Detach(conn); err != nil {
		return err
	}
	loop.Post(func() {
		if f.reg, err = loop.Register(f.fd, f); err != nil {
			reactor.Close(f.fd)
		}
	})
	return nil
}

// Ready echoes, or streams.
func (f *farEnd) Ready(reactor.Events) {
	if !f.flush() {
		return
	}
	for buf := f.loop.Scratch(); ; {
		n, err := reactor.Read(f.fd, buf)
		switch {
		case errors.Is(err, reactor.ErrAgain):
			f.reg.Drained(reactor.Readable)
			return
		case err != nil:
			f.reg.Unregister()
			reactor.Close(f.fd)
			return
		case f.stream && n == 8:
			f.left = binary.BigEndian.Uint64(buf)
		default:
			f.unsent = buf[:n]
		}
		if !f.flush() {
			f.unsent = append([]byte(nil), f.unsent...) // the buffer is the loop's
			return
		}
	}
}

var streamBytes [256 << 10]byte

// flush sends what is to be sent; false: there is more than is taken.
func (f *farEnd) flush() bool {
	for len(f.unsent) > 0 || f.left > 0 {
		out := f.unsent
		if len(out) == 0 {
			out = streamBytes[:min(f.left, uint64(len(streamBytes)))]
		}
		n, err := reactor.Write(f.fd, out)
		switch {
		case errors.Is(err, reactor.ErrAgain):
			f.reg.Drained(reactor.Writable)
			return false
		case err != nil:
			return true // the next read says what has become of it
		case len(f.unsent) > 0:
			f.unsent = f.unsent[n:]
		default:
			f.left -= uint64(n)
		}
	}
	return true
}
