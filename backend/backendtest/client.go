package backendtest

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/selvedge/selvedge/backend"
)

// Client is one WebSocket session of a user, as an edge would have brought it. It answers pings while the test waits in one of its
// methods.
type Client struct {
	m    *Member
	conn net.Conn
	in   *bufio.Reader
}

// Option changes one upgrade.
type Option func(*upgrade)

type upgrade struct {
	target string
	header http.Header
}

// Target sets the path and the query, which a handler and Config.Device may look at. Default "/".
func Target(pathAndQuery string) Option { return func(u *upgrade) { u.target = pathAndQuery } }

// Header sets a header of the request.
func Header(name, value string) Option { return func(u *upgrade) { u.header.Set(name, value) } }

// Connect opens a session of user; the test fails where it is refused.
func (m *Member) Connect(user string, opts ...Option) *Client {
	m.t.Helper()
	c, err := m.dial(user, opts)
	if err != nil {
		m.t.Fatalf("backendtest: connect as %s: %v", user, err)
	}
	return c
}

// WantRefused fails the test unless the service answers user's upgrade with status.
func (m *Member) WantRefused(status int, user string, opts ...Option) {
	m.t.Helper()
	var refused ws.StatusError
	if _, err := m.dial(user, opts); !errors.As(err, &refused) || int(refused) != status {
		m.t.Fatalf("backendtest: connect as %s: %v; want status %d", user, err, status)
	}
}

func (m *Member) dial(user string, opts []Option) (*Client, error) {
	u := upgrade{target: "/", header: make(http.Header)}
	for _, opt := range opts {
		opt(&u)
	}
	u.header.Set(backend.UserHeader, escape(user))
	dialer := ws.Dialer{Timeout: timeout, Header: ws.HandshakeHeaderHTTP(u.header)}
	conn, in, _, err := dialer.Dial(context.Background(), "ws://"+m.Addr().String()+u.target)
	if err != nil {
		return nil, err
	}
	m.t.Cleanup(func() { _ = conn.Close() })
	if in == nil { // else it holds what came right behind the 101
		in = bufio.NewReader(conn)
	}
	return &Client{m, conn, in}, nil
}

// escape encodes a user id as edges do, and a little more than they: every byte.
func escape(user string) string {
	const digits = "0123456789ABCDEF"
	out := make([]byte, 0, 3*len(user))
	for i := range len(user) {
		out = append(out, '%', digits[user[i]>>4], digits[user[i]&15])
	}
	return string(out)
}

// Send sends a message.
func (c *Client) Send(m backend.Message) {
	c.m.t.Helper()
	op := ws.OpText
	if m.Binary {
		op = ws.OpBinary
	}
	c.limitTime()
	if err := wsutil.WriteClientMessage(c.conn, op, m.Data); err != nil {
		c.m.t.Fatalf("backendtest: send: %v", err)
	}
}

// Receive returns the next message. The test fails where the session ends instead, or nothing comes in 10 s.
func (c *Client) Receive() backend.Message {
	c.m.t.Helper()
	f, err := c.next()
	if err != nil {
		c.m.t.Fatalf("backendtest: receive: %v", err)
	}
	if f.Header.OpCode == ws.OpClose {
		code, reason := ws.ParseCloseFrameData(f.Payload)
		c.m.t.Fatalf("backendtest: receive: closed with %d %q", code, reason)
	}
	return backend.Message{Data: f.Payload, Binary: f.Header.OpCode == ws.OpBinary}
}

// WantClose fails the test unless the session ends with code, after whatever messages; it returns the reason. 1006 stands for an end
// without a close frame.
func (c *Client) WantClose(code int) (reason string) {
	c.m.t.Helper()
	f, err := c.next()
	for err == nil && f.Header.OpCode != ws.OpClose {
		f, err = c.next()
	}
	got := ws.StatusAbnormalClosure
	if err == nil {
		got, reason = ws.ParseCloseFrameData(f.Payload)
	} else if !errors.Is(err, io.EOF) {
		c.m.t.Fatalf("backendtest: want close code %d: %v", code, err)
	}
	if int(got) != code {
		c.m.t.Fatalf("backendtest: closed with %d %q, want %d", got, reason, code)
	}
	_ = c.conn.Close() // a client answers, or just goes
	return reason
}

// Close ends the session as a client does that leaves a page: with a close frame, code 1001.
func (c *Client) Close() {
	c.m.t.Helper()
	c.limitTime()
	frame := ws.MaskFrameInPlace(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusGoingAway, "")))
	if err := ws.WriteFrame(c.conn, frame); err != nil {
		c.m.t.Fatalf("backendtest: close: %v", err)
	}
	_ = c.conn.Close()
}

// next returns the next frame that is not a ping or a pong. A member sends no fragments.
func (c *Client) next() (ws.Frame, error) {
	c.limitTime()
	for {
		f, err := c.read()
		if err != nil || !f.Header.OpCode.IsControl() || f.Header.OpCode == ws.OpClose {
			return f, err
		}
		if f.Header.OpCode == ws.OpPing {
			if err := ws.WriteFrame(c.conn, ws.MaskFrameInPlace(ws.NewPongFrame(f.Payload))); err != nil {
				return f, err
			}
		}
	}
}

// read returns one frame; its size is the member's to bound.
func (c *Client) read() (f ws.Frame, err error) {
	if f.Header, err = ws.ReadHeader(c.in); err != nil {
		return f, err
	}
	f.Payload = make([]byte, f.Header.Length)
	_, err = io.ReadFull(c.in, f.Payload)
	return f, err
}

func (c *Client) limitTime() { _ = c.conn.SetDeadline(time.Now().Add(timeout)) }
