//go:build unix

package reactor

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// listening is a listening socket on loopback, taken out of package net.
func listening(t *testing.T, addr string) (fd int, at netip.AddrPort) {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Skip(err)
	}
	at = netip.MustParseAddrPort(ln.Addr().String())
	if fd, err = DetachListener(ln.(*net.TCPListener)); err != nil {
		t.Fatal(err)
	}
	closeLater(t, fd)
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener still accepts: %v", err)
	}
	return fd, at
}

// told is a handler that passes on what it is told.
type told chan Events

func (c told) Ready(ev Events) { c <- ev }

// Two sockets that never knew package net: accepted and connected on a loop.
func TestAcceptAndConnect(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		onEachPoller(t, func(t *testing.T, r *Reactor) {
			listener, at := listening(t, addr)
			if _, _, err := Accept(listener); err != ErrAgain {
				t.Errorf("Accept with nobody there: %v", err)
			}
			far, err := Connect(at, netip.Addr{})
			if err != nil {
				t.Fatal(err)
			}
			closeLater(t, far)
			events := make(told, 16)
			reg, err := r.Loops()[0].Register(far, events)
			if err != nil {
				t.Fatal(err)
			}
			receive(t, events)
			onLoop(t, r.Loops()[0], reg.Unregister)
			if err := Connected(far); err != nil {
				t.Fatal(err)
			}
			near, peer, err := Accept(listener)
			if err != nil {
				t.Fatal(err)
			}
			closeLater(t, near)
			sa, err := unix.Getsockname(far)
			if err != nil {
				t.Fatal(err)
			}
			switch sa := sa.(type) {
			case *unix.SockaddrInet4:
				if want := netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)); peer != want {
					t.Errorf("peer %v, want %v", peer, want)
				}
			case *unix.SockaddrInet6:
				if want := netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)); peer != want {
					t.Errorf("peer %v, want %v", peer, want)
				}
			}
			for _, fd := range []int{near, far} {
				if on, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY); err != nil || on == 0 {
					t.Errorf("TCP_NODELAY is %d, %v", on, err)
				}
				if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
					t.Errorf("not close-on-exec: %d, %v", flags, err)
				}
				if _, err := Peek(fd, make([]byte, 1)); err != ErrAgain {
					t.Errorf("Peek where nothing is: %v", err)
				}
			}
			if _, err := Write(far, []byte("hello")); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 16)
			for _, f := range []func(int, []byte) (int, error){Peek, Peek, Read} {
				if n, err := f(near, buf); string(buf[:n]) != "hello" || err != nil {
					t.Errorf("got %q, %v", buf[:n], err)
				}
			}
			if err := unix.Shutdown(far, unix.SHUT_WR); err != nil {
				t.Fatal(err)
			}
			if _, err := Peek(near, buf); err != io.EOF {
				t.Errorf("Peek at the end: %v", err)
			}
		})
	}
}

// A dual-stack listener names peers as they are known elsewhere.
func TestAcceptUnmaps(t *testing.T) {
	listener, at := listening(t, "[::]:0")
	far, err := Connect(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), at.Port()), netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, far)
	near, peer, err := Accept(listener)
	if err != nil {
		t.Skip(err) // the system has no dual stack
	}
	closeLater(t, near)
	if peer.Addr() != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("peer %v", peer)
	}
}

func TestConnectRefused(t *testing.T) {
	onEachPoller(t, func(t *testing.T, r *Reactor) {
		listener, at := listening(t, "127.0.0.1:0")
		_ = unix.Close(listener)
		fd, err := Connect(at, netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		closeLater(t, fd)
		events := make(told, 16)
		reg, err := r.Loops()[0].Register(fd, events)
		if err != nil {
			t.Fatal(err)
		}
		receive(t, events)
		onLoop(t, r.Loops()[0], reg.Unregister)
		if err := Connected(fd); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("Connected: %v", err)
		}
	})
}

// A socket that connects to its own port meets itself; that is nobody.
func TestConnectToItself(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	own, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, own); err != nil {
		t.Skip(err) // other systems refuse
	}
	if err := Connected(fd); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("Connected: %v", err)
	}
}

// Who is given a registration is told of what its predecessor left lying, and alone hears of what comes.
func TestGive(t *testing.T) {
	onEachPoller(t, func(t *testing.T, r *Reactor) {
		near, far := pair(t)
		l := r.Loops()[0]
		first, second := make(told, 16), make(told, 16)
		var reg Registration
		onLoop(t, l, func() { reg, _ = l.Register(near, first) })
		receive(t, first)
		if _, err := Write(far, []byte("x")); err != nil {
			t.Fatal(err)
		}
		for receive(t, first)&Readable == 0 { // the byte is left where it is
		}
		onLoop(t, l, func() { reg.Give(second); reg.Yield() })
		if ev := receive(t, second); ev&Readable == 0 {
			t.Errorf("told of %v", ev)
		}
		onLoop(t, l, func() {
			if _, err := Read(near, l.Scratch()); err != nil {
				t.Error(err)
			}
			reg.Drained(Readable)
		})
		if _, err := Write(far, []byte("y")); err != nil {
			t.Fatal(err)
		}
		for receive(t, second)&Readable == 0 {
		}
		if len(first) != 0 {
			t.Errorf("the first handler was told of %v", <-first)
		}
		onLoop(t, l, func() { reg.Unregister(); reg.Give(first); reg.Yield() })
		turns(t, l, 3)
		if len(first) != 0 {
			t.Error("a registration that has ended was given")
		}
	})
}
