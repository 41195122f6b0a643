//go:build unix

package tunnel

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/selvedge/selvedge/internal/reactor"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

func TestMain(m *testing.M) {
	if what := os.Getenv(farEnds); what != "" {
		if err := play(what); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if ln, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		_ = ln.Close() // Go's poller has its descriptors from here on, so that no test counts them as left over
	}
	goleak.VerifyTestMain(m)
}

// mode is one way that a tunnel can work. All of them pass the same tests.
type mode struct {
	name     string
	engine   Engine
	reactor  func(loops int) (*reactor.Reactor, error)
	userland bool    // the client's connection has no descriptor
	adopted  bool    // both are on a loop already
	tls      [2]bool // by side
}

var modes = []mode{
	{name: "auto", engine: Auto, reactor: reactor.New},
	{name: "copy", engine: Copy, reactor: reactor.New},
	{name: "splice", engine: Splice, reactor: reactor.New},
	{name: "poll", engine: Auto, reactor: reactor.NewPortable},
	{name: "on loop", engine: Auto, reactor: reactor.New, adopted: true},
	{name: "goroutines", engine: Auto, reactor: reactor.New, userland: true},
	{name: "TLS client", engine: Auto, reactor: reactor.New, tls: [2]bool{client: true}},
	{name: "TLS both", engine: Auto, reactor: reactor.NewPortable, tls: [2]bool{true, true}},
}

// rig is a relay under test.
type rig struct {
	mode
	relay *Relay
}

// inEachMode runs a test in every mode and checks that it left nothing behind: descriptors, goroutines, tunnels, pipes.
func inEachMode(t *testing.T, loops int, cfg Config, test func(t *testing.T, r *rig)) {
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) { inMode(t, m, loops, cfg, test) })
	}
}

func inMode(t *testing.T, m mode, loops int, cfg Config, test func(t *testing.T, r *rig)) {
	t.Helper()
	descriptors, goroutines := openDescriptors(t), runtime.NumGoroutine()
	re, err := m.reactor(loops)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Reactor, cfg.Engine = re, m.engine
	relay, err := NewRelay(cfg)
	if err != nil {
		t.Fatal(err)
	}
	test(t, &rig{mode: m, relay: relay})
	if err := relay.Close(); err != nil {
		t.Error(err)
	}
	if err := re.Close(); err != nil {
		t.Error(err)
	}
	if n, pipes := relay.Len(), relay.pipes.Load(); n != 0 || pipes != 0 {
		t.Errorf("%d tunnels and %d pipes are left", n, pipes)
	}
	eventually(t, "descriptors and goroutines back to the start", func() bool {
		return openDescriptors(t) == descriptors && runtime.NumGoroutine() <= goroutines
	})
}

// joined is a tunnel and the far ends of its two connections.
type joined struct {
	client, backend farEnd
	tunnel          *Tunnel
	closed          chan Summary
}

// early is what Join is told has been read already.
type early struct{ fromClient, fromBackend []byte }

func (r *rig) join(t testing.TB, e early) *joined {
	t.Helper()
	if r.tls != [2]bool{} {
		return r.joinTLS(t, e)
	}
	farClient, nearClient := tcpConns(t)
	farBackend, nearBackend := tcpConns(t)
	j := &joined{client: farClient, backend: farBackend, closed: make(chan Summary, 2)}
	var err error
	if r.adopted {
		if j.tunnel, err = r.joinOnLoop(t, nearClient, nearBackend, e, func(s Summary) { j.closed <- s }); err != nil {
			t.Fatal(err)
		}
		return j
	}
	j.tunnel, err = r.relay.Join(End{Conn: r.dress(nearClient), Early: e.fromClient}, End{Conn: nearBackend, Early: e.fromBackend},
		func(s Summary) { j.closed <- s })
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// former is who had the sockets of [Relay.JoinOn] before: it takes no notice of what happens to them.
type former struct{}

func (former) Ready(reactor.Events) {}

// joinOnLoop joins two connections that have been on a loop for a while.
func (r *rig) joinOnLoop(t testing.TB, c, b *net.TCPConn, e early, onClose func(Summary)) (joined *Tunnel, err error) {
	t.Helper()
	loop := r.relay.cfg.Reactor.Loop()
	ends := [2]Socket{{Early: e.fromClient}, {Early: e.fromBackend}}
	for i, conn := range []*net.TCPConn{c, b} {
		if ends[i].FD, err = reactor.Detach(conn); err != nil {
			t.Fatal(err)
		}
		if ends[i].Registration, err = loop.Register(ends[i].FD, former{}); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	loop.Post(func() {
		defer close(done)
		joined, err = r.relay.JoinOn(loop, ends[client], ends[backend], onClose)
	})
	receive(t, done)
	return joined, err
}

// end closes the far ends and returns how the tunnel ended.
func (j *joined) end(t testing.TB) Summary {
	t.Helper()
	_ = j.client.Close()
	_ = j.backend.Close()
	return receive(t, j.closed)
}

// dress hides the descriptor, as TLS does.
func (r *rig) dress(c *net.TCPConn) net.Conn {
	if r.userland {
		return undescribed{c, c}
	}
	return c
}

type undescribed struct {
	net.Conn
	tcp *net.TCPConn
}

func (u undescribed) CloseWrite() error { return u.tcp.CloseWrite() }
func (u undescribed) NetConn() net.Conn { return u.tcp }

// farEnd is what a test has of a connection: a *net.TCPConn, or TLS on one.
type farEnd interface {
	net.Conn
	CloseWrite() error
	SetLinger(int) error
	SetReadBuffer(int) error
	SetWriteBuffer(int) error
}

// farTLS is the far end of a connection with TLS.
type farTLS struct {
	*tls.Conn
	*tcpOptions
}

// tcpOptions are those methods of a *net.TCPConn that a *tls.Conn does not have.
type tcpOptions struct{ tcp *net.TCPConn }

func (o *tcpOptions) SetLinger(s int) error      { return o.tcp.SetLinger(s) }
func (o *tcpOptions) SetReadBuffer(n int) error  { return o.tcp.SetReadBuffer(n) }
func (o *tcpOptions) SetWriteBuffer(n int) error { return o.tcp.SetWriteBuffer(n) }

// Close is a reset where SetLinger has asked for one: saying goodbye first would put a record before it.
func (f farTLS) Close() error { return f.tcp.Close() }

// joinTLS is join with TLS on the sides that want it; the near end of a backend's is a client's, as an edge's is.
func (r *rig) joinTLS(t testing.TB, e early) *joined {
	t.Helper()
	j := &joined{closed: make(chan Summary, 2)}
	var near [2]net.Conn
	for s, far := range [2]*farEnd{&j.client, &j.backend} {
		farTCP, nearTCP := tcpConns(t)
		*far, near[s] = farTCP, nearTCP
		if r.tls[s] {
			var over *tls.Conn
			over, near[s] = shake(t, farTCP, NewWire(nearTCP), side(s) == client)
			*far = farTLS{over, &tcpOptions{farTCP}}
		}
	}
	var err error
	j.tunnel, err = r.relay.Join(End{Conn: near[client], Early: e.fromClient}, End{Conn: near[backend], Early: e.fromBackend},
		func(s Summary) { j.closed <- s })
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// certificate is for the TLS servers of tests. Nobody verifies it.
var certificate = sync.OnceValue(func() []tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
})

// shake puts both ends of a connection under TLS. The far end is the client's, or the server's.
func shake(t testing.TB, far, near net.Conn, farIsClient bool) (farOver, nearOver *tls.Conn) {
	t.Helper()
	server, client := &tls.Config{Certificates: certificate()}, &tls.Config{InsecureSkipVerify: true}
	if farIsClient {
		farOver, nearOver = tls.Client(far, client), tls.Server(near, server)
	} else {
		farOver, nearOver = tls.Server(far, server), tls.Client(near, client)
	}
	shaken := make(chan error, 1)
	go func() { shaken <- nearOver.Handshake() }()
	if err := errors.Join(farOver.Handshake(), receive(t, shaken)); err != nil {
		t.Fatal(err)
	}
	return farOver, nearOver
}

// tcpConns returns the two ends of a TCP connection.
func tcpConns(t testing.TB) (far, near *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

func receive[T any](t testing.TB, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		buf := make([]byte, 1<<16)
		t.Fatalf("nothing came for %v\n%s", patience, buf[:runtime.Stack(buf, true)])
	}
	return v
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// expect reads exactly the text.
func expect(t testing.TB, c net.Conn, text string) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, len(text))
	if n, err := io.ReadFull(c, buf); err != nil || string(buf) != text {
		t.Fatalf("read %q, %v, want %q", buf[:n], err, text)
	}
}

// expectError reads until an error, which must be the wanted one.
func expectError(t testing.TB, c net.Conn, want error) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	_, err := io.Copy(io.Discard, c)
	if err == nil {
		err = io.EOF
	}
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

func say(t testing.TB, c net.Conn, text string) {
	t.Helper()
	_ = c.SetWriteDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func openDescriptors(t testing.TB) int {
	t.Helper()
	names, err := os.ReadDir("/dev/fd")
	if err != nil {
		t.Skip("no /dev/fd here")
	}
	return len(names)
}

// onLoop runs f on the loop of the i-th shard and waits for it.
func (r *rig) onLoop(t testing.TB, i int, f func(s *shard)) {
	t.Helper()
	done := make(chan struct{})
	s := r.relay.shards[i]
	s.loop.Post(func() { f(s); close(done) })
	receive(t, done)
}
