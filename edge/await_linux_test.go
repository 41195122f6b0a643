package edge

import (
	"bufio"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// crowdedListener listens on a port whose queue one connection has filled: the next one is there only some time after Accept.
func crowdedListener(t *testing.T) *net.TCPListener {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "listener")
	defer file.Close()
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	ln, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	first, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = first.Close() })
	_ = ln.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	return ln.(*net.TCPListener)
}

// TestHeadWaitsForItsMember has a head wait for the connection to its member while others are sent from the same loops.
func TestHeadWaitsForItsMember(t *testing.T) {
	ln := crowdedListener(t)
	e := start(t, Config{Membership: members(ln.Addr().String(), listenBackend(t, echo("b1"))),
		Services: map[string]ServiceConfig{DefaultService: {ConnectTimeout: time.Minute}}})
	waiting, other := e.ownedBy("b0"), e.ownedBy("b1")
	c := e.send(upgradeTo("/ws?user=" + waiting))
	for range 8 { // on each loop some
		if status := e.send(upgradeTo("/a-path-of-another-length?user=" + other)).head().StatusCode; status != http.StatusSwitchingProtocols {
			t.Fatalf("status %d", status)
		}
	}
	var conn net.Conn
	for range 2 { // the one in the way first
		var err error
		if conn, err = ln.Accept(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	r, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		t.Fatal(err)
	}
	if r.RequestURI != "/ws?user="+waiting || r.Header.Get("X-Selvedge-User") != waiting {
		t.Errorf("%s, %v", r.RequestURI, r.Header)
	}
	say(conn, "%s", switched(r, ""))
	if status := c.head().StatusCode; status != http.StatusSwitchingProtocols {
		t.Errorf("status %d", status)
	}
}
