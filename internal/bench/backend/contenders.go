package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"

	coder "github.com/coder/websocket"
	"github.com/gobwas/ws"
	"github.com/gorilla/websocket"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/backend/sender"
)

// contender is a server that echoes what its clients send, and sends a message to all of them. user says who a client is.
type contender struct {
	name  string
	start func() (server, error)
}

type server interface {
	addr() string
	broadcast(text []byte) error
}

// manyServer can push to users by name.
type manyServer interface {
	pushMany(users int, text []byte) error
}

var contenders = []contender{
	{"selvedge", newOurs}, {"gorilla/websocket", newGorilla}, {"coder/websocket", newCoder}, {"write(2)", newBare},
}

func userName(i int) string { return "user-" + strconv.Itoa(i) }

// ours is package backend with its defaults, and a sender that reaches it by its RPC port.
type ours struct {
	member *backend.Backend
	sender *sender.Sender
}

func newOurs() (server, error) {
	// A list needs the ports before they are there.
	var ports [2]int
	for i := range ports {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		ports[i] = ln.Addr().(*net.TCPAddr).Port
		ln.Close()
	}
	membership := backend.Membership{Backends: fmt.Sprintf("b1=127.0.0.1:%d/%d", ports[0], ports[1])}
	b, err := backend.New(backend.Config{
		ID: "b1", Listen: fmt.Sprint("127.0.0.1:", ports[0]), RPC: fmt.Sprint("127.0.0.1:", ports[1]), Membership: membership,
		OnMessage: func(s *backend.Session, m backend.Message) { _ = s.Send(m) },
	})
	if err != nil {
		return nil, err
	}
	failed := make(chan error, 1)
	go func() { failed <- b.Run(context.Background()) }()
	select {
	case <-b.Ready():
	case err := <-failed:
		return nil, err
	}
	s, err := sender.New(sender.Config{Membership: membership})
	return &ours{b, s}, err
}

func (o *ours) addr() string { return o.member.Addr().String() }

func (o *ours) broadcast(text []byte) error {
	n, silent, err := o.sender.Broadcast(context.Background(), sender.Message{Data: text})
	if err == nil && (n != o.member.Sessions() || len(silent) > 0) {
		err = fmt.Errorf("%d of %d sessions", n, o.member.Sessions())
	}
	return err
}

func (o *ours) pushMany(users int, text []byte) error {
	list := make([]string, users)
	for i := range list {
		list[i] = userName(i)
	}
	results, err := o.sender.PushMany(context.Background(), list, sender.Message{Data: text})
	for _, r := range results {
		if r.Sessions != 1 {
			err = errors.Join(err, fmt.Errorf("%s: %d sessions, %w", r.User, r.Sessions, r.Err))
		}
	}
	return err
}

// crowd is the sockets of a server that keeps them itself.
type crowd[C comparable] struct {
	listener net.Listener
	mu       sync.Mutex
	conns    map[C]struct{}
}

func newCrowd[C comparable](serve func(*crowd[C], http.ResponseWriter, *http.Request)) (*crowd[C], error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &crowd[C]{listener: ln, conns: make(map[C]struct{})}
	go func() {
		_ = http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serve(c, w, r) }))
	}()
	return c, nil
}

func (c *crowd[C]) addr() string { return c.listener.Addr().String() }

func (c *crowd[C]) add(conn C) {
	c.mu.Lock()
	c.conns[conn] = struct{}{}
	c.mu.Unlock()
}

func (c *crowd[C]) each(send func(C) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		if err := send(conn); err != nil {
			return err
		}
	}
	return nil
}

// gorilla is an echo server as gorilla's documentation has it, with prepared messages for broadcasts.
type gorilla struct{ *crowd[*websocket.Conn] }

func newGorilla() (server, error) {
	upgrader := websocket.Upgrader{}
	c, err := newCrowd(func(c *crowd[*websocket.Conn], w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		c.add(conn)
		for {
			kind, data, err := conn.ReadMessage()
			if err != nil || conn.WriteMessage(kind, data) != nil {
				return
			}
		}
	})
	return gorilla{c}, err
}

func (g gorilla) broadcast(text []byte) error {
	m, err := websocket.NewPreparedMessage(websocket.TextMessage, text)
	if err != nil {
		return err
	}
	return g.each(func(c *websocket.Conn) error { return c.WritePreparedMessage(m) })
}

type coderServer struct{ *crowd[*coder.Conn] }

func newCoder() (server, error) {
	c, err := newCrowd(func(c *crowd[*coder.Conn], w http.ResponseWriter, r *http.Request) {
		conn, err := coder.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = conn.CloseNow() }()
		c.add(conn)
		for {
			kind, data, err := conn.Read(r.Context())
			if err != nil || conn.Write(r.Context(), kind, data) != nil {
				return
			}
		}
	})
	return coderServer{c}, err
}

func (s coderServer) broadcast(text []byte) error {
	return s.each(func(c *coder.Conn) error { return c.Write(context.Background(), coder.MessageText, text) })
}

// bare writes a frame that was compiled once to one descriptor after the other, and does nothing else.
type bare struct{ *crowd[int] }

func newBare() (server, error) {
	c, err := newCrowd(func(c *crowd[int], w http.ResponseWriter, r *http.Request) {
		conn, _, _, err := ws.UpgradeHTTP(r, w)
		if err != nil {
			return
		}
		file, err := conn.(*net.TCPConn).File()
		if err != nil {
			return
		}
		c.add(int(file.Fd()))
		_, _ = io.Copy(io.Discard, conn) // holds both
		file.Close()
	})
	return bare{c}, err
}

func (b bare) broadcast(text []byte) error {
	frame := ws.MustCompileFrame(ws.NewTextFrame(text))
	return b.each(func(fd int) error {
		_, err := syscall.Write(fd, frame)
		return err
	})
}
