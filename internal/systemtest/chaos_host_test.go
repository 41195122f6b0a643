package systemtest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"regexp"
	"sync"
	"testing"

	"github.com/selvedge/selvedge/internal/testkit"
)

// host is where one process lives, again and again: its addresses outlast it.
type host struct {
	ip          string
	listen, rpc string         // host:port; an edge has no rpc
	enter       func(f func()) // runs f where processes that it starts have this address
}

// loopbackHost is a host that shares 127.0.0.1 with all others, and cannot be cut off.
func loopbackHost(t *testing.T) *host {
	t.Helper()
	h := &host{ip: "127.0.0.1", enter: func(f func()) { f() }}
	h.listen = fmt.Sprintf("%s:%d", h.ip, testkit.FreePort(t))
	h.rpc = fmt.Sprintf("%s:%d", h.ip, testkit.FreePort(t))
	return h
}

// ownHost is a host with an address of its own.
func ownHost(l *lan) *host {
	h := l.host()
	h.listen, h.rpc = h.ip+":9000", h.ip+":9100"
	return h
}

// testLine is how the log of a test begins a line.
var testLine = regexp.MustCompile(`^\s+\w+_test\.go:\d+: `)

// logLines logs what another run of the test prints, as it comes.
func logLines(t *testing.T, r io.Reader) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		t.Log(testLine.ReplaceAllString(lines.Text(), ""))
	}
}

// relay lets others reach an address that listens on our loopback only. What it cannot connect it resets.
type relay struct {
	to string
	ln net.Listener

	mu    sync.Mutex
	ended bool
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

func startRelay(t *testing.T, listen, to string) string {
	t.Helper()
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{to: to, ln: ln, conns: make(map[net.Conn]bool)}
	r.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			r.wg.Go(func() { r.pass(conn) })
		}
	})
	t.Cleanup(r.close)
	return ln.Addr().String()
}

func (r *relay) pass(outer net.Conn) {
	defer r.hold(outer)()
	inner, err := net.Dial("tcp", r.to)
	if err != nil {
		_ = outer.(*net.TCPConn).SetLinger(0) // as if nobody listened
		return
	}
	defer r.hold(inner)()
	var back sync.WaitGroup
	back.Go(func() { flow(outer, inner) })
	flow(inner, outer)
	back.Wait()
}

// flow copies until from ends, and tells to.
func flow(to, from net.Conn) {
	if _, err := io.Copy(to, from); err != nil { // torn on either side: so is the other
		to.Close()
		from.Close()
		return
	}
	_ = to.(*net.TCPConn).CloseWrite() // fails only where it is gone already
}

// hold has close end the connection, too, until release has closed it.
func (r *relay) hold(conn net.Conn) (release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns[conn] = true
	if r.ended {
		conn.Close()
	}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.conns, conn)
		conn.Close()
	}
}

func (r *relay) close() {
	r.ln.Close()
	r.mu.Lock()
	r.ended = true
	for conn := range r.conns {
		conn.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
}
