// A chat on gorilla/websocket whose servers reach each other's users by fan-out over a Redis channel, as many are built.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/redis/go-redis/v9"
)

type message struct {
	From string `json:"from"`
	To   string `json:"to"`
	Text string `json:"text"`
}

// chat is one server: it knows the sockets that it holds, and nothing of the others'.
type chat struct {
	redis    *redis.Client
	upgrader websocket.Upgrader
	mu       sync.Mutex
	sockets  map[string]map[*socket]bool // by user
}

type socket struct {
	conn  *websocket.Conn
	queue chan []byte
}

func main() {
	listen := flag.String("listen", ":9000", "where clients connect")
	broker := flag.String("redis", "127.0.0.1:6379", "the broker")
	flag.Parse()
	c := &chat{redis: redis.NewClient(&redis.Options{Addr: *broker}), sockets: make(map[string]map[*socket]bool)}
	go c.subscribe()
	http.HandleFunc("/ws", c.serve)
	ln, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	log.Print("listening on ", ln.Addr())
	log.Fatal(http.Serve(ln, nil))
}

// subscribe gets every message of every server, and keeps those for users who are here.
func (c *chat) subscribe() {
	for m := range c.redis.Subscribe(context.Background(), "chat").Channel() {
		var msg message
		if json.Unmarshal([]byte(m.Payload), &msg) != nil {
			continue
		}
		c.mu.Lock()
		for _, user := range []string{msg.To, msg.From} { // the sender's other devices, too
			for s := range c.sockets[user] {
				select {
				case s.queue <- []byte(m.Payload):
				default: // too slow
				}
			}
		}
		c.mu.Unlock()
	}
}

func (c *chat) serve(w http.ResponseWriter, r *http.Request) {
	user := r.URL.Query().Get("user")
	conn, err := c.upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	s := &socket{conn, make(chan []byte, 64)}
	c.mu.Lock()
	if c.sockets[user] == nil {
		c.sockets[user] = make(map[*socket]bool)
	}
	c.sockets[user][s] = true
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.sockets[user], s)
		close(s.queue)
		c.mu.Unlock()
	}()
	go s.write()
	for {
		msg := message{}
		if conn.ReadJSON(&msg) != nil {
			return
		}
		msg.From = user
		text, _ := json.Marshal(msg)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		if err := c.redis.Publish(ctx, "chat", text).Err(); err != nil {
			log.Print("publish: ", err) // and nobody else hears of it
		}
		cancel()
	}
}

func (s *socket) write() {
	for text := range s.queue {
		_ = s.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if s.conn.WriteMessage(websocket.TextMessage, text) != nil {
			return
		}
	}
}
