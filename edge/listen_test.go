package edge

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// scarce is a listener that runs out of descriptors now and then.
type scarce struct {
	net.Listener
	errs  []error
	calls atomic.Int32
}

func (s *scarce) Accept() (net.Conn, error) {
	if i := int(s.calls.Add(1)) - 1; i < len(s.errs) {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", s.errs[i])}
	}
	return s.Listener.Accept()
}

func TestAcceptSurvives(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &scarce{Listener: ln, errs: []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.EPERM}}
	e := start(t, Config{Listen: []Listener{{Inherited: s}}, Membership: members(listenBackend(t, echo("b0")))})
	if c := e.send(upgradeTo("/ws?user=a")); c.head().StatusCode != http.StatusSwitchingProtocols {
		t.Error("no session after the shortage")
	}
	for reason, want := range map[string]string{"descriptors": "2", "memory": "1", "other": "1"} {
		if got := e.metric(`selvedge_edge_accept_errors_total{reason="` + reason + `"}`); got != want {
			t.Errorf("%s: %s, want %s", reason, got, want)
		}
	}
}

func TestAcceptEndsDuringAPause(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	many := make([]error, 1000)
	for i := range many {
		many[i] = syscall.EMFILE
	}
	e := start(t, Config{Listen: []Listener{{Inherited: &scarce{Listener: ln, errs: many}}}, Membership: members()})
	e.stop()
	if err := e.wait(); err != nil {
		t.Error(err)
	}
}

func TestPortTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, cfg := range []Config{
		{Listen: []Listener{{Addr: "127.0.0.1:0"}, {Addr: ln.Addr().String()}}, Admin: Admin{Addr: "off"}},
		{Listen: []Listener{{Addr: "127.0.0.1:0"}}, Admin: Admin{Addr: ln.Addr().String()}},
	} {
		cfg.Membership = members()
		e, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "choose another port") {
			t.Errorf("Run: %v", err)
		}
		if err := e.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "make another") {
			t.Errorf("Run, the second time: %v", err)
		}
	}
}

func TestSessionLimitFromDescriptors(t *testing.T) {
	for _, c := range []struct {
		descriptors uint64
		configured  int
		want        int
	}{
		{1024, 0, 448}, {20_000, 0, 8750}, {256, 0, 96}, {10, 0, 1}, {20_000, 100, 100}, {20_000, 10_000, 8750}, {0, 7, 7},
	} {
		if got := sessionLimit(c.descriptors, c.configured); got != c.want {
			t.Errorf("%d descriptors, %d configured: %d, want %d", c.descriptors, c.configured, got, c.want)
		}
	}
}

// Two listeners accept on two loops, and what a loop has belongs to it alone: for the race detector.
func TestTwoListenersAtOnce(t *testing.T) {
	const clients = 200 // more than a loop begins with in a turn
	free := Listener{Addr: "127.0.0.1:0"}
	e := start(t, Config{Listen: []Listener{free, free}, Membership: members(listenBackend(t, echo("b0")))})
	e.nothingLeft(func() {
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() {
				conn, err := net.Dial("tcp", e.addrs[i%2].String())
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(patience))
				say(conn, "%s", upgradeTo("/ws?user=a"))
				got, err := http.ReadResponse(bufio.NewReader(conn), nil) //nolint:bodyclose // the connection ends
				if err != nil || got.StatusCode != http.StatusSwitchingProtocols {
					t.Errorf("answered %v, %v", got, err)
				}
			})
		}
		wg.Wait()
	})
}
