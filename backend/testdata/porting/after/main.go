// The same chat as ../before on package backend: no broker, an answer for each message, and a store for users who are offline.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/selvedge/selvedge/backend"
)

type message struct {
	From string `json:"from"`
	To   string `json:"to"`
	Text string `json:"text"`
	ID   string `json:"id"` // the client's own, unique among its user's messages: it may send a message again
}

// ack tells the sending client what became of its message.
type ack struct {
	Ack      string `json:"ack"`
	Sessions int    `json:"sessions"` // that have it; 0: it is kept
	Error    string `json:"error,omitempty"`
}

type chat struct {
	member *backend.Backend
	store  store
}

func main() {
	id := flag.String("id", "n1", "this server's name")
	listen := flag.String("listen", ":9000", "where edges connect")
	rpc := flag.String("rpc", "127.0.0.1:9100", "where the other servers connect")
	members := flag.String("backends", "", "all servers: ID=HOST:PORT/RPCPORT,...; empty: Consul knows them")
	dir := flag.String("store", "offline", "directory of what is kept, shared by all servers")
	flag.Parse()
	membership := backend.Membership{Backends: *members}
	if *members == "" {
		membership.Consul = &backend.Consul{}
	}
	c := &chat{store: store(*dir)}
	var err error
	c.member, err = backend.New(backend.Config{
		ID: *id, Listen: *listen, RPC: *rpc, Membership: membership, OnOpen: c.open, OnMessage: c.message, OnOffline: c.offline,
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() { <-c.member.Ready(); log.Print("serving") }()
	if err := c.member.Run(ctx); err != nil {
		log.Print(err)
		os.Exit(1)
	}
}

// open hands out what was kept, once the client is there to take it.
func (c *chat) open(s *backend.Session, _ *http.Request) error {
	go c.handOut(s.User())
	return nil
}

func (c *chat) message(s *backend.Session, m backend.Message) {
	var msg message
	if err := json.Unmarshal(m.Data, &msg); err != nil || msg.ID == "" {
		s.Close(1007, "want {to, text, id}")
		return
	}
	msg.From = s.User()
	text, _ := json.Marshal(msg)
	id := backend.WithMessageID(msg.From + "/" + msg.ID)
	ctx := context.Background() // five seconds, unless it says otherwise
	sessions, err := c.member.Push(ctx, msg.To, backend.Message{Data: text}, id)
	a := ack{Ack: msg.ID, Sessions: sessions}
	if err != nil {
		a.Error = err.Error() // the client sends it again, under the same id
	}
	if msg.To != msg.From { // a copy for the sender's other devices
		_, _ = c.member.Push(ctx, msg.From, backend.Message{Data: text}, id, backend.ExceptSession(s.ID()))
	}
	answer, _ := json.Marshal(a)
	_ = s.Send(backend.Message{Data: answer})
}

// offline keeps a message. A user who has connected since it found nobody would not see it in the store: it is handed out.
func (c *chat) offline(_ context.Context, user, id string, m backend.Message) error {
	if err := c.store.put(user, id, m.Data); err != nil {
		return err
	}
	if len(c.member.SessionsOf(user)) > 0 {
		go c.handOut(user)
	}
	return nil
}

// handOut pushes what is kept, and lets go of what was taken. The id keeps a session from getting a message twice.
func (c *chat) handOut(user string) {
	for id, text := range c.store.all(user) {
		n, err := c.member.Push(context.Background(), user, backend.Message{Data: text}, backend.WithMessageID(id))
		if err != nil || n == 0 {
			return // it stays for the next time
		}
		c.store.drop(user, id)
	}
}
