package chat

import (
	"context"
	"embed"
	"encoding/json"
	"io/fs"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/edge/client"
)

//go:embed web
var web embed.FS

const (
	deliverTimeout = 5 * time.Second
	deliverWidth   = 8 // receivers of one message that are pushed to at once
)

// chat is the service's state: none but the member it runs on.
type chat struct{ backend *backend.Backend }

// New makes the chat a member of its service. cfg's handlers are the chat's.
func New(cfg backend.Config) (*backend.Backend, error) {
	c := new(chat)
	cfg.OnOpen, cfg.OnMessage, cfg.HTTP = c.open, c.message, c.routes()
	b, err := backend.New(cfg)
	c.backend = b
	return b, err
}

// conversation is a session's own state.
type conversation struct {
	echo bool
	sent uint64
}

func (c *chat) open(s *backend.Session, r *http.Request) error {
	switch r.URL.Path {
	case "/ws":
		s.Data = &conversation{}
		if r.URL.Query().Get("hello") == "1" {
			return send(s, hello{welcome{s.User(), c.backend.ID(), s.ID()}})
		}
	case "/echo":
		s.Data = &conversation{echo: true}
	default:
		return &backend.Refusal{Status: http.StatusNotFound, Text: "WebSockets are at /ws and /echo"}
	}
	return nil
}

func (c *chat) message(s *backend.Session, m backend.Message) {
	talk := s.Data.(*conversation)
	if talk.echo {
		_ = s.Send(m) // a session that is closing needs no echo
		return
	}
	wish, err := parseSay(m.Data)
	if err != nil {
		_ = send(s, ack{ID: wish.ID, Error: err.Error()})
		return
	}
	id := s.User() + "/" + wish.ID // a message that a client sends again, over another connection maybe, arrives once
	if wish.ID == "" {
		talk.sent++
		id = s.ID() + "-" + strconv.FormatUint(talk.sent, 36)
		wish.ID = id
	}
	_ = send(s, c.deliver(s, wish, id))
}

// deliver pushes to each receiver and to the sender's other sessions, and tells what came of it.
func (c *chat) deliver(s *backend.Session, wish say, id string) ack {
	text, err := json.Marshal(said{s.User(), wish.To, wish.Text, wish.ID})
	if err != nil {
		return ack{ID: wish.ID, Error: err.Error()}
	}
	ctx, cancel := context.WithTimeout(context.Background(), deliverTimeout)
	defer cancel()
	results := make([]result, len(wish.To.users))
	var wg sync.WaitGroup
	gate := make(chan struct{}, deliverWidth)
	toSelf := false
	for i, user := range wish.To.users {
		toSelf = toSelf || user == s.User()
		gate <- struct{}{}
		wg.Go(func() {
			results[i] = c.push(ctx, user, text, id, s.ID())
			<-gate
		})
	}
	wg.Wait()
	if !toSelf {
		c.push(ctx, s.User(), text, id, s.ID())
	}
	return summary(wish.ID, results)
}

// push carries one message to one user's sessions, but for the one that it came from.
func (c *chat) push(ctx context.Context, user string, text []byte, id, except string) result {
	n, err := c.backend.Push(ctx, user, backend.Message{Data: text}, backend.WithMessageID(id), backend.ExceptSession(except))
	r := result{User: user, Sessions: n, Outcome: "OFFLINE"}
	if n > 0 {
		r.Outcome = "DELIVERED"
	}
	if err != nil {
		r.Outcome, r.Error = "", err.Error()
	}
	return r
}

func summary(id string, results []result) ack {
	a := ack{ID: id, Outcome: "OFFLINE"}
	for _, r := range results {
		a.Sessions += r.Sessions
		if r.Error != "" {
			a.Error = r.User + ": " + r.Error
		}
		if r.Outcome == "DELIVERED" {
			a.Outcome = r.Outcome
		}
	}
	if a.Error != "" {
		a.Outcome = ""
	}
	if len(results) > 1 {
		a.Results = results
	}
	return a
}

func send(s *backend.Session, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.Send(backend.Message{Data: text})
}

func (c *chat) routes() http.Handler {
	files, err := fs.Sub(web, "web")
	if err != nil {
		panic(err) // the folder is compiled in
	}
	page := http.FileServerFS(files)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-cache")
		page.ServeHTTP(w, r)
	})
	mux.HandleFunc("GET "+client.Path, client.Serve) // an edge answers this itself; whatever else is in front passes it on
	mux.HandleFunc("GET /whoami", c.whoami)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	socket := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Upgrade", "websocket")
		http.Error(w, "this path speaks WebSocket", http.StatusUpgradeRequired)
	}
	mux.HandleFunc("GET /ws", socket)
	mux.HandleFunc("GET /echo", socket)
	return mux
}

func (c *chat) whoami(w http.ResponseWriter, r *http.Request) {
	user, err := backend.UserOf(r)
	if err != nil {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"user": user, "backend": c.backend.ID(), "sessions": len(c.backend.SessionsOf(user)),
	})
}
