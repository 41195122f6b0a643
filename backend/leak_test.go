package backend_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/backend/sender"
	"github.com/selvedge/selvedge/internal/testkit"
)

// descriptors counts this process's open ones; 0 where the system does not list them.
func descriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}

// Every way in which a session can end, over and over: the process is as it was, and each session was told of once.
func TestNothingIsLeftOfSessions(t *testing.T) {
	const sessions = 1000
	var mu sync.Mutex
	closed := make(map[string]int)
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.MessageBytes = 1000
		cfg.OnOpen = func(s *backend.Session, _ *http.Request) error {
			if s.User() == "refused" {
				return &backend.Refusal{Status: 403}
			}
			return nil
		}
		cfg.OnMessage = func(s *backend.Session, m backend.Message) {
			if string(m.Data) == "panic" {
				panic("as asked")
			}
			s.Close(4000, string(m.Data))
		}
		cfg.OnClose = func(s *backend.Session, _ backend.CloseReason) { mu.Lock(); closed[s.ID()]++; mu.Unlock() }
	})
	m := c.members[0]
	control := newSender(t, sender.Config{Via: "http://" + m.RPCAddr().String()})
	kick := func(user string) {
		if n, err := control.Disconnect(context.Background(), user, "", 0, ""); n != 1 || err != nil {
			t.Errorf("disconnect: %d, %v", n, err)
		}
	}
	over := func(send []byte, frames ...string) func(user string) {
		return func(user string) {
			s := m.open(t, user)
			s.write(send)
			s.want(frames...)
			s.Close()
		}
	}
	ways := []func(user string){
		over(closing(1000, ""), "close 1000", "end"),
		over(text("bye"), "close 4000 bye", "end"),
		over(text("panic"), "close 1011", "end"),
		over(raw(true, 0, 3, ""), "close 1002", "end"),
		over(text("\xff"), "close 1007", "end"),
		over(header(1, 5000), "close 1009", "end"),
		func(user string) { m.open(t, user).Close() },
		func(user string) { reset(t, m.open(t, user)) },
		func(user string) { s := m.open(t, user); kick(user); s.want("close 1008 kick", "end"); s.Close() },
		func(string) { s := m.socket(t); s.write([]byte(handshake("refused"))); s.answer(); s.Close() },
		func(user string) {
			s := m.socket(t)
			s.write([]byte(handshake(user, "Sec-WebSocket-Protocol: ,;=")))
			s.answer()
			s.Close()
		},
		func(user string) { s := m.socket(t); s.write([]byte(handshake(user))); reset(t, s) }, // gone before the 101
	}
	for i := range ways { // once before counting: what is made once stays
		ways[i](fmt.Sprint("warm-", i))
	}
	settled := func() bool { return m.Sessions() == 0 }
	testkit.Eventually(t, 10*time.Second, settled, "the warm-up to end")
	http.DefaultClient.CloseIdleConnections()
	fds, goroutines := descriptors(), runtime.NumGoroutine()

	var wg sync.WaitGroup
	gate := make(chan struct{}, 8)
	for i := range sessions {
		gate <- struct{}{}
		wg.Go(func() { ways[i%len(ways)](fmt.Sprint("user-", i)); <-gate })
	}
	wg.Wait()
	testkit.Eventually(t, 10*time.Second, func() error {
		if n := m.Sessions(); n != 0 {
			return fmt.Errorf("%d sessions", n)
		}
		if n := descriptors(); n > fds {
			return fmt.Errorf("%d descriptors, %d before", n, fds)
		}
		if n := runtime.NumGoroutine(); n > goroutines+4 { // pooled ones of the HTTP client come and go
			return fmt.Errorf("%d goroutines, %d before", n, goroutines)
		}
		return nil
	}, "the process as it was")
	if err := m.stop(); err != nil {
		t.Fatal(err)
	}
	for id, n := range closed {
		if n != 1 {
			t.Errorf("session %s: OnClose %d times", id, n)
		}
	}
	var counted float64
	for name, value := range scrape(t, m.registry) {
		if len(name) > 35 && name[:35] == "selvedge_backend_session_closes_tot" && name != "selvedge_backend_session_closes_total{reason=refused}" {
			counted += value
		}
	}
	if int(counted) != len(closed) || len(closed) < sessions*9/12 {
		t.Errorf("%v closes counted, %d told of", counted, len(closed))
	}
}
