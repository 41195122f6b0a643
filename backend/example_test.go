package backend_test

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/internal/discovery"
)

// Two members of one service in one process; with Consul they would be two processes, and Membership would say so.
func Example() {
	registry := discovery.NewMemory()
	start := func(id string) (member *backend.Backend, stop func()) {
		member, err := backend.New(backend.Config{
			ID: id, Listen: "127.0.0.1:0", RPC: "127.0.0.1:0",
			Membership: backend.Membership{Memory: registry},
			OnOpen: func(s *backend.Session, _ *http.Request) error {
				return s.Send(backend.Text("welcome, " + s.User()))
			},
			OnMessage: func(s *backend.Session, m backend.Message) {
				n, err := member.Push(context.Background(), "bob", m) // wherever bob is
				_ = s.Send(backend.Text(fmt.Sprintf("bob has %d sessions (%v)", n, err)))
			},
		})
		if err != nil {
			panic(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- member.Run(ctx) }()
		<-member.Ready()
		return member, func() { cancel(); <-ended }
	}
	b1, stop1 := start("b1")
	defer stop1()
	b2, stop2 := start("b2")
	defer stop2()

	connect := func(member *backend.Backend, user string) net.Conn { // what an edge does for a client
		header := ws.HandshakeHeaderHTTP(http.Header{backend.UserHeader: {user}})
		conn, in, _, err := ws.Dialer{Header: header}.Dial(context.Background(), "ws://"+member.Addr().String())
		if err != nil {
			panic(err)
		}
		var text []byte
		if in != nil { // the greeting came in the same packet as the 101
			frame, err := ws.ReadFrame(in)
			if err != nil {
				panic(err)
			}
			text = frame.Payload
		} else if text, err = wsutil.ReadServerText(conn); err != nil {
			panic(err)
		}
		fmt.Println(string(text))
		return conn
	}
	home := map[string]*backend.Backend{"b1": b1, "b2": b2}
	bob := connect(home[b2.Owner("bob")], "bob")
	defer bob.Close()
	alice := connect(home[b2.Owner("alice")], "alice")
	defer alice.Close()

	_ = wsutil.WriteClientText(alice, []byte("hi bob"))
	for _, conn := range []net.Conn{bob, alice} {
		text, err := wsutil.ReadServerText(conn)
		if err != nil {
			panic(err)
		}
		fmt.Println(string(text))
	}
	// Output:
	// welcome, bob
	// welcome, alice
	// hi bob
	// bob has 1 sessions (<nil>)
}
