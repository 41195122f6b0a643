package backend_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/internal/discovery"
)

// A chat: what a client says as "bob: hi" goes to bob's sessions, wherever they are. Here are two members of it in one process; with Consul
// they would be two processes, and Membership would say so.
func Example() {
	registry := discovery.NewMemory()
	start := func(id string) (member *backend.Backend, stop func()) {
		member, err := backend.New(backend.Config{
			ID: id, Listen: "127.0.0.1:0", RPC: "127.0.0.1:0", Membership: backend.Membership{Memory: registry},
			OnOpen: func(s *backend.Session, _ *http.Request) error {
				return s.Send(backend.Text("welcome, " + s.User()))
			},
			OnMessage: func(s *backend.Session, m backend.Message) {
				to, text, _ := strings.Cut(string(m.Data), ": ")
				n, err := member.Push(context.Background(), to, backend.Text(s.User()+" says "+text))
				_ = s.Send(backend.Text(fmt.Sprintf("%s has %d sessions (%v)", to, n, err)))
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

	home := map[string]*backend.Backend{"b1": b1, "b2": b2}
	bob := enter(home[b2.Owner("bob")], "bob")
	defer bob.Close()
	alice := enter(home[b2.Owner("alice")], "alice")
	defer alice.Close()
	alice.say("bob: hi")
	bob.hear()
	alice.hear()
	// Output:
	// welcome, bob
	// welcome, alice
	// alice says hi
	// bob has 1 sessions (<nil>)
}

// talker is a client.
type talker struct {
	net.Conn
	in *bufio.Reader
}

// enter does what an edge does for a client, and prints the greeting.
func enter(member *backend.Backend, user string) talker {
	header := ws.HandshakeHeaderHTTP(http.Header{backend.UserHeader: {user}})
	conn, in, _, err := ws.Dialer{Header: header}.Dial(context.Background(), "ws://"+member.Addr().String())
	if err != nil {
		panic(err)
	}
	if in == nil { // else the greeting came in the same packet as the 101
		in = bufio.NewReader(conn)
	}
	t := talker{conn, in}
	t.hear()
	return t
}

// Read reads what Dial has read ahead, too.
func (t talker) Read(p []byte) (int, error) { return t.in.Read(p) }

func (t talker) say(text string) {
	if err := wsutil.WriteClientText(t.Conn, []byte(text)); err != nil {
		panic(err)
	}
}

func (t talker) hear() {
	text, err := wsutil.ReadServerText(t)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(text))
}
