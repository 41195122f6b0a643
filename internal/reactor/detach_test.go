//go:build unix

package reactor

import (
	"errors"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// tcpPair returns the descriptors of two ends of a TCP connection.
func tcpPair(t testing.TB) (near, far int) {
	t.Helper()
	a, b := tcpConns(t)
	for i, c := range []net.Conn{a, b} {
		fd, err := Detach(c)
		if err != nil {
			t.Fatal(err)
		}
		closeLater(t, fd)
		if i == 0 {
			near = fd
		} else {
			far = fd
		}
	}
	return near, far
}

func tcpConns(t testing.TB) (net.Conn, net.Conn) {
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
	return a, b
}

func TestDetachKeepsTheConnection(t *testing.T) {
	before := openDescriptors(t)
	a, b := tcpConns(t)
	if _, err := b.Write([]byte("early")); err != nil {
		t.Fatal(err)
	}
	fd, err := Detach(a)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("writing to the detached conn: %v, want ErrClosed", err)
	}
	buf := make([]byte, 10)
	var n int
	eventually(t, "bytes sent before", func() bool { n, err = Read(fd, buf); return err != ErrAgain })
	if string(buf[:n]) != "early" || err != nil {
		t.Errorf("read %q, %v", buf[:n], err)
	}
	send(t, fd, "back")
	if n, err = b.Read(buf); string(buf[:n]) != "back" {
		t.Errorf("the other end read %q, %v", buf[:n], err)
	}
	status, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if status&unix.O_NONBLOCK == 0 || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %x and %x, want O_NONBLOCK and FD_CLOEXEC", status, flags)
	}
	_ = unix.Close(fd)
	_ = b.Close()
	if after := openDescriptors(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func TestDetachWithoutDescriptor(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if _, err := Detach(a); !errors.Is(err, ErrNoDescriptor) {
		t.Fatalf("error %v, want ErrNoDescriptor", err)
	}
	go func() { _, _ = a.Write([]byte("x")) }()
	if n, err := b.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("the connection is not as it was: %d, %v", n, err)
	}
}

func TestDetachClosed(t *testing.T) {
	a, b := tcpConns(t)
	_ = a.Close()
	_ = b.Close()
	if _, err := Detach(a); !errors.Is(err, net.ErrClosed) || errors.Is(err, ErrNoDescriptor) {
		t.Errorf("error %v, want ErrClosed", err)
	}
}
