package systemtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"sync"
	"time"

	"github.com/gobwas/ws"
)

// client is one device of a user: it holds one WebSocket, connects again at once when that ends, and logs everything for the judge.
type client struct {
	user, device string
	doors        []*node // edges

	mu  sync.Mutex
	log []*session // the last is the present one
}

// clients are all devices of a run.
type clients struct {
	list []*client
	stop context.CancelFunc
	wg   sync.WaitGroup
}

const (
	dialTimeout = 5 * time.Second
	startEvery  = 2 * time.Millisecond // between first connections: only breaks make everybody come at once
	quickTries  = 3                    // after the first, soon after each other; then retryFirst, doubled up to retryMost
	quickLeast  = 5 * time.Millisecond
	quickMost   = 50 * time.Millisecond
	retryFirst  = 100 * time.Millisecond
	retryMost   = 500 * time.Millisecond
)

// connectAll brings perUser devices of each user online, and keeps them so until close.
func connectAll(users []string, perUser int, doors []*node) *clients {
	ctx, stop := context.WithCancel(context.Background())
	all := &clients{stop: stop}
	for _, user := range users {
		for i := range perUser {
			c := &client{user: user, device: fmt.Sprintf("d%d", i), doors: doors}
			wait := time.Duration(len(all.list)) * startEvery
			all.list = append(all.list, c)
			all.wg.Go(func() {
				if sleep(ctx, wait) {
					c.live(ctx)
				}
			})
		}
	}
	return all
}

// close has everybody leave.
func (all *clients) close() { all.stop(); all.wg.Wait() }

// sessions returns the log of all.
func (all *clients) sessions() []*session {
	var log []*session
	for _, c := range all.list {
		c.mu.Lock()
		for _, s := range c.log {
			shot := *s
			shot.got = append([]receipt(nil), s.got...)
			log = append(log, &shot)
		}
		c.mu.Unlock()
	}
	return log
}

// present returns a copy of the client's session, without what it got; false while it has none.
func (c *client) present() (session, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.log) == 0 {
		return session{}, false
	}
	s := *c.log[len(c.log)-1]
	s.got = nil
	return s, s.id != "" && s.ended.IsZero()
}

// has tells whether the client's present session got a message.
func (c *client) has(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.log) == 0 {
		return false
	}
	s := c.log[len(c.log)-1]
	for i := len(s.got) - 1; i >= 0; i-- {
		if s.got[i].id == id {
			return s.ended.IsZero()
		}
	}
	return false
}

func (c *client) live(ctx context.Context) {
	door := rand.IntN(len(c.doors))
	for tries := 0; sleep(ctx, pause(tries)); tries++ {
		if c.connect(ctx, c.doors[door%len(c.doors)]) {
			tries = -1
			door = rand.IntN(len(c.doors))
		} else {
			door++ // the next one may be alive
		}
	}
}

// pause is how long to wait before the n-th try.
func pause(n int) time.Duration {
	switch {
	case n == 0:
		return 0
	case n <= quickTries:
		return quickLeast + rand.N(quickMost-quickLeast)
	default:
		most := min(retryFirst<<min(n-quickTries-1, 10), retryMost)
		return most/2 + rand.N(most/2)
	}
}

// connect is the life of one session. It returns whether there was one.
func (c *client) connect(ctx context.Context, door *node) bool {
	s := &session{user: c.user, device: c.device, edge: door.id, tried: time.Now()}
	dialer := ws.Dialer{Timeout: dialTimeout}
	target := "ws://" + door.host.listen + "/ws?hello=1&user=" + url.QueryEscape(c.user) + "&device=" + c.device
	conn, early, _, err := dialer.Dial(ctx, target)
	if err != nil {
		s.ended, s.cause = time.Now(), notOpened
		var status ws.StatusError
		if errors.As(err, &status) {
			s.cause, s.code = refused, ws.StatusCode(status)
		}
		c.keep(s)
		return false
	}
	s.opened = time.Now()
	c.keep(s)
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer conn.Close()
	var from io.Reader = conn
	if early != nil { // what came with the 101
		from = early
	}
	for {
		op, payload, err := readFrame(from)
		if err == nil && op == ws.OpPing {
			answerPing(conn, payload)
			continue
		}
		now := time.Now()
		c.mu.Lock()
		switch {
		case ctx.Err() != nil:
			s.ended, s.cause = now, left
		case err != nil:
			s.ended, s.cause = now, broke
		case op == ws.OpClose:
			s.ended, s.cause = now, told
			s.code, _ = ws.ParseCloseFrameData(payload)
		case bytes.HasPrefix(payload, []byte(`{"hello"`)):
			s.id, s.backend = readHello(payload)
		default:
			s.got = append(s.got, receipt{string(payload), now})
		}
		ended := !s.ended.IsZero()
		c.mu.Unlock()
		if ended {
			return true
		}
	}
}

func (c *client) keep(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = append(c.log, s)
}

func readHello(payload []byte) (id, backend string) {
	var hello struct {
		Hello struct{ Backend, Session string }
	}
	_ = json.Unmarshal(payload, &hello) // what it does not say stays empty, and is missed later
	return hello.Hello.Session, hello.Hello.Backend
}

// sleep returns false where ctx ended meanwhile.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
