package edge

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/reactor"
	"github.com/selvedge/selvedge/internal/testkit"
)

// fast keeps a test on the reactor that has nothing to say of net/http alone.
func fast(t *testing.T) {
	if slowPath {
		t.Skip("over the reactor only")
	}
}

// counted is the sum of a counter over all its labels, read without a descriptor.
func (r *running) counted(name string) (sum float64) {
	families, err := r.cfg.Metrics.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// handedOver is how many connections net/http has been given.
func (r *running) handedOver() int { return int(r.counted("selvedge_edge_handovers_total")) }

// raw keeps every byte of a request's head, passes it on, and switches.
func raw(heads chan<- string) func(net.Conn) {
	return func(conn net.Conn) {
		var head bytes.Buffer
		r, err := http.ReadRequest(bufio.NewReader(io.TeeReader(conn, &head)))
		if err != nil {
			return
		}
		heads <- head.String()
		say(conn, "%s", switched(r, "Set-Cookie: a=1\r\nx-lower: y\r\nSec-WebSocket-Protocol: chat\r\nSet-Cookie: b=2\r\n"))
		_, _ = io.Copy(io.Discard, conn)
	}
}

var requestIDs = regexp.MustCompile(`X-Request-Id: [0-9a-f]{32}`)

// The backend reads the same bytes, and the client the same 101, whichever way an upgrade goes; and what is meant for the reactor stays there.
func TestSameOnBothPaths(t *testing.T) {
	fast(t)
	heads := make(chan string, 1)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = ln.Close(); <-done })
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			raw(heads)(conn)
			_ = conn.Close()
		}
	}()
	cfg := Config{Name: "edge1", Membership: members(ln.Addr().String()), Routes: []Route{
		{Path: "/"}, {Path: "/none/", Key: "none"}, {Path: "/p/", Key: "path:2"}, {Path: "/ip/", Key: "ip"},
		{Path: "/c/", Key: "cookie:uid,header:X-User"}, {Host: "*.wild.test", Path: "/", Key: "header:X-User"},
	}}
	trusting := cfg
	trusting.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	for i, cfg := range []Config{cfg, trusting} {
		quick, slow := start(t, cfg), start(t, cfg, func(e *Edge) { e.slow = true })
		for _, request := range []string{
			upgradeTo("/ws?user=alice"),
			upgradeTo("/none/x?a=%20;b+c&&d"),
			upgradeTo("/p/%C3%A9l%c3%a8ve/../x//y"),
			upgradeTo("/ip/"),
			upgradeTo("/c/", `Cookie: a="b"; uid=alice`, "Cookie: z=1"),
			upgradeTo("/c/", "x-user: bob", "X-User: bob"),
			strings.Replace(upgradeTo("/", "X-User: carol"), "edge.test", "A.wild.TEST.:80", 1),
			upgradeTo("/?user=a", "X-Forwarded-For: 1.2.3.4, 127.0.0.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: h", "Forwarded: for=x"),
			upgradeTo("/ip/", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-For: 5.6.7.8"),
			upgradeTo("/?user=a", "X-Selvedge-User: eve", "x_selvedge_user: eve", "X-SELVEDGE-Passed-Over: b9", "X_Forwarded_For: 9.9.9.9", "_X-Selvedge-User: q"),
			upgradeTo("/?user=a", "Keep-Alive: 5", "TE: trailers", "Proxy-Connection: x", "Connection: X-Mine, close", "X-Mine: 1", "X-Yours: 1"),
			upgradeTo("/?user=a", "Sec-WebSocket-Protocol: chat", "sec-websocket-extensions: permessage-deflate", "Accept:  a,b  ", "Pragma: no-cache", "Empty:"),
			strings.Replace(upgradeTo("/?user=a"), "Connection: Upgrade", "connection: keep-alive, UPGRADE", 1),
			strings.Replace(upgradeTo("/?user=a"), "Version: 13", "Version: 12", 1),
			strings.Replace(upgradeTo("/?user=a"), "edge.test", "[2001:db8::1]:8080", 1),
		} {
			var got [2]string
			for j, e := range []*running{quick, slow} {
				c := e.send(request)
				answer := c.head()
				if answer.StatusCode != http.StatusSwitchingProtocols {
					t.Fatalf("%q: %s", request, answer.Status)
				}
				got[j] = requestIDs.ReplaceAllString(<-heads, "X-Request-Id: ID") + fmt.Sprint(answer.Header)
				_ = c.Close()
			}
			if got[0] != got[1] {
				t.Errorf("%q:\nover the reactor\n%s\nover net/http\n%s", request, got[0], got[1])
			}
		}
		if n := quick.handedOver(); n != 0 {
			t.Errorf("%d: %d were handed over, want none", i, n)
		}
	}
}

// However a head is cut into packets, on either side, it is the same session.
func TestHeadsInPieces(t *testing.T) {
	for _, piece := range []int{1, 50, 130} {
		t.Run(fmt.Sprint(piece), func(t *testing.T) {
			write := func(conn net.Conn, text string) {
				for chunk := range slices.Chunk([]byte(text), piece) {
					_, _ = conn.Write(chunk)
				}
			}
			addr := listenBackend(t, func(conn net.Conn, br *bufio.Reader, r *http.Request) {
				write(conn, switched(r, "")+"first\n")
				_, _ = io.Copy(conn, br)
			})
			e := start(t, Config{Membership: members(addr)})
			e.nothingLeft(func() {
				c := e.dial()
				write(c, upgradeTo("/ws?user=a")+"second\n")
				if got := c.head(); got.StatusCode != http.StatusSwitchingProtocols {
					t.Fatalf("answered %s", got.Status)
				}
				if one, two := c.line(), c.line(); one != "first" || two != "second" {
					t.Errorf("got %q, %q", one, two)
				}
				_ = c.Close()
			})
		})
	}
}

// What is no plain 101 goes on in net/http from where it is, and the member that has been asked is not asked again.
func TestHandedOverWhileAsking(t *testing.T) {
	fast(t)
	for name, answer := range map[string]func(r *http.Request) string{
		"lines end oddly": func(r *http.Request) string { return strings.ReplaceAll(switched(r, ""), "\r\n", "\n") + "hi\n" },
		"interim answer":  func(r *http.Request) string { return "HTTP/1.1 103 Hints\r\n\r\n" + switched(r, "") + "hi\n" },
		"folded":          func(r *http.Request) string { return switched(r, "X-A: a\r\n b\r\n") + "hi\n" },
	} {
		t.Run(name, func(t *testing.T) {
			asked := make(chan struct{}, 10)
			addr := listenBackend(t, func(conn net.Conn, br *bufio.Reader, r *http.Request) {
				asked <- struct{}{}
				say(conn, "%s", answer(r))
				_, _ = io.Copy(conn, br)
			})
			e := start(t, Config{Membership: members(addr)})
			e.nothingLeft(func() {
				c := e.send(upgradeTo("/ws?user=a") + "early\n")
				if got := c.head(); got.StatusCode != http.StatusSwitchingProtocols {
					t.Fatalf("answered %s", got.Status)
				}
				if one, two := c.line(), c.line(); one != "hi" || two != "early" {
					t.Errorf("got %q, %q", one, two)
				}
				_ = c.Close()
			})
			if len(asked) != 1 {
				t.Errorf("asked %d times", len(asked))
			}
		})
	}
}

// A member that is known by name is dialled by package net.
func TestMemberByName(t *testing.T) {
	_, port, _ := net.SplitHostPort(listenBackend(t, echo("b0")))
	e := start(t, Config{Membership: members("localhost:" + port)})
	c := e.send(upgradeTo("/ws?user=a"))
	if c.head().StatusCode != http.StatusSwitchingProtocols || c.line() != "b0/a" {
		t.Error("no session")
	}
}

// small gives a socket the smallest buffer of a kind that the kernel has.
func small(t *testing.T, conn syscall.Conn, kind int) {
	raw, err := conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, kind, 1) })
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A head that the member's socket does not take at once goes out as there is room.
func TestHeadInMoreThanOneWrite(t *testing.T) {
	fast(t)
	loops, err := reactor.New(1)
	if err != nil {
		t.Fatal(err)
	}
	defer loops.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	small(t, ln.(*net.TCPListener), syscall.SO_RCVBUF) // inherited by what it accepts
	near, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	small(t, near.(*net.TCPConn), syscall.SO_SNDBUF)
	far, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	fd, err := reactor.Detach(near)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	head := make([]byte, 1<<20)
	for i := range head {
		head[i] = byte(i * 7 >> 8)
	}
	o := &opening{stage: asking, attempt: &attempt{unsent: head}, member: socket{fd: fd}}
	registered := make(chan error)
	loops.Loops()[0].Post(func() {
		o.lane = newLane(nil, loops.Loops()[0])
		var err error
		o.member.reg, err = o.lane.loop.Register(fd, (*memberSide)(o))
		registered <- err
	})
	if err := <-registered; err != nil {
		t.Fatal(err)
	}
	_ = far.SetDeadline(time.Now().Add(patience))
	got := make([]byte, len(head))
	if n, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, head) {
		t.Errorf("%d bytes came, or not those: %v", n, err)
	}
}

// A 101 that the client's socket does not take at once is finished by the tunnel.
func TestSwitchInMoreThanOneWrite(t *testing.T) {
	fast(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	small(t, ln.(*net.TCPListener), syscall.SO_SNDBUF) // inherited by what it accepts
	big := strings.Repeat("X-Big: "+strings.Repeat("x", 1000)+"\r\n", 40)
	e := start(t, Config{Listen: []Listener{{Inherited: ln}}, Membership: members(listenBackend(t,
		func(conn net.Conn, br *bufio.Reader, r *http.Request) {
			say(conn, "%shello\n", switched(r, big))
			_, _ = io.Copy(conn, br)
		}))})
	c := e.dial()
	small(t, c.Conn.(*net.TCPConn), syscall.SO_RCVBUF)
	say(c, "%s", upgradeTo("/ws?user=a"))
	testkit.Eventually(t, patience, func() bool { return e.Sessions() == 1 }, "it is a session")
	if answer := c.head(); len(answer.Header["X-Big"]) != 40 || c.line() != "hello" {
		t.Errorf("got %s with %d fields", answer.Status, len(answer.Header["X-Big"]))
	}
	if n := e.handedOver(); n != 0 {
		t.Errorf("%d were handed over", n)
	}
}

// Who does not send a head is let go, without an answer, on either path.
func TestHeadTooLate(t *testing.T) {
	for _, text := range []string{"", "GET /ws?user=a HTTP/1.1\r\nHost: edge.test\r\n"} {
		e := start(t, Config{Membership: members()}, func(e *Edge) { e.headTimeout = 100 * time.Millisecond })
		e.nothingLeft(func() {
			c := e.send(text)
			c.ended()
			_ = c.Close()
		})
	}
}

// A drain waits for upgrades that are under way, and breaks them off at its timeout.
func TestDrainDuringUpgrades(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	addr := listenBackend(t, func(conn net.Conn, br *bufio.Reader, r *http.Request) {
		asked <- struct{}{}
		if _, ok := <-answer; ok {
			say(conn, "%s", switched(r, ""))
			_, _ = io.Copy(conn, br)
		}
	})
	t.Cleanup(func() { close(answer) })
	services := map[string]ServiceConfig{DefaultService: {ResponseTimeout: time.Hour}}
	t.Run("waits", func(t *testing.T) {
		e := start(t, Config{Membership: members(addr), Services: services, DrainTimeout: time.Hour})
		c := e.send(upgradeTo("/ws?user=a"))
		<-asked
		e.stop()
		testkit.Eventually(t, patience, func() bool { return e.draining.Load() }, "it drains")
		answer <- struct{}{}
		if got := c.head(); got.StatusCode != http.StatusSwitchingProtocols {
			t.Errorf("answered %s", got.Status)
		}
		_ = c.Close()
		if err := e.wait(); err != nil {
			t.Error(err)
		}
	})
	t.Run("lets the silent go", func(t *testing.T) {
		fast(t) // net/http waits for 5 s
		e := start(t, Config{Membership: members(addr), DrainTimeout: time.Hour}, func(e *Edge) { e.headTimeout = time.Hour })
		c := e.dial()
		e.send(upgradeTo("/ws")).refused(400) // and so c has been accepted
		e.stop()
		c.ended()
	})
	t.Run("breaks off", func(t *testing.T) {
		e := start(t, Config{Membership: members(addr), Services: services, DrainTimeout: 50 * time.Millisecond})
		c := e.send(upgradeTo("/ws?user=a"))
		<-asked
		e.stop()
		if _, err := c.br.ReadByte(); err == nil {
			t.Error("answered")
		}
		if err := e.wait(); err != nil {
			t.Error(err)
		}
		if e.sessions.held != 0 { // nobody else has them any more
			t.Errorf("%d places are held", e.sessions.held)
		}
	})
}

// Without a descriptor left nobody is turned away: clients wait in the kernel's queue until there is one.
func TestAcceptWithoutDescriptors(t *testing.T) {
	fast(t)
	e := start(t, Config{Membership: members(listenBackend(t, echo("b0")))})
	if c := e.send(upgradeTo("/ws?user=a")); c.head().StatusCode != http.StatusSwitchingProtocols || c.line() == "" {
		t.Fatal("no session while all is well")
	}
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	restore := func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	}
	defer restore()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0) // the client's, in time
	if err != nil {
		t.Fatal(err)
	}
	few := before
	few.Cur = 0 // nothing new from here on; what is open stays
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	port := e.Addr().(*net.TCPAddr).Port
	if err := syscall.Connect(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, patience, func() bool { return e.counted("selvedge_edge_accept_errors_total") >= 2 }, "it tries again")
	restore()
	f := os.NewFile(uintptr(fd), "client")
	defer f.Close()
	if _, err := f.WriteString(upgradeTo("/ws?user=a")); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(f).ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 101 ") {
		t.Errorf("got %q, %v", line, err)
	}
}

// A crowd that comes at once, some of it to a member that is dead, is served on the reactor alone.
func TestManyUpgradesAtOnce(t *testing.T) {
	const n = 400
	registry := discovery.NewMemory()
	for i := range 3 {
		registry.Put(DefaultService, discovery.Member{ID: fmt.Sprint("b", i), Addr: listenBackend(t, echo(fmt.Sprint("b", i))), Weight: 1})
	}
	registry.Put(DefaultService, discovery.Member{ID: "dead", Addr: deadAddr(t), Weight: 1})
	e := start(t, Config{Membership: Membership{Memory: registry}})
	e.await(func(snap *discovery.Snapshot) bool { return len(snap.Members) == 4 })
	e.nothingLeft(func() {
		clients := make(chan *client, n)
		for i := range n {
			go func() {
				c := e.send(upgradeTo(fmt.Sprintf("/ws?user=u%d", i)))
				if c.head().StatusCode != http.StatusSwitchingProtocols || !strings.HasSuffix(c.line(), fmt.Sprintf("/u%d", i)) {
					t.Error("no session")
				}
				clients <- c
			}()
		}
		for range n {
			_ = (<-clients).Close()
		}
	})
	if n := e.handedOver(); !slowPath && n != 0 {
		t.Errorf("%d were handed over", n)
	}
}
