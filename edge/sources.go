package edge

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/reactor"
)

// sources are the addresses that connections to a service's members come from, in turn. One address has some 28,000 ports, for each
// address and port that it connects to. Without any, the system chooses.
type sources struct {
	addrs []netip.Addr
	turn  atomic.Uint32
}

// of returns the sources of to's family, as many as there are to try, beginning with the one whose turn it is. The zero value, for the
// system's choice, stands alone.
func (s *sources) of(to netip.Addr) []netip.Addr {
	if len(s.addrs) == 0 {
		return systemsChoice
	}
	list := make([]netip.Addr, 0, len(s.addrs))
	first := int(s.turn.Add(1)-1) % len(s.addrs)
	for i := range s.addrs {
		if a := s.addrs[(first+i)%len(s.addrs)]; !to.IsValid() || a.Is4() == to.Is4() {
			list = append(list, a)
		}
	}
	if len(list) == 0 {
		return systemsChoice
	}
	return list
}

var systemsChoice = []netip.Addr{{}}

// connect begins a connection on the reactor, from the first source that has a port left.
func (s *sources) connect(to netip.AddrPort) (fd int, err error) {
	for _, from := range s.of(to.Addr()) {
		if fd, err = reactor.Connect(to, from); !errors.Is(err, syscall.EADDRNOTAVAIL) {
			break
		}
	}
	return fd, err
}

// dial is the same with package net, for names and sockets of the file system too.
func (s *sources) dial(ctx context.Context, addr string, until time.Time) (conn net.Conn, err error) {
	if network, path := discovery.Network(addr); network == "unix" {
		d := net.Dialer{Deadline: until}
		return d.DialContext(ctx, network, path)
	}
	to, _ := netip.ParseAddrPort(addr) // invalid for a name: any source will do, and the one that is taken decides the family
	for _, from := range s.of(to.Addr().Unmap()) {
		d := net.Dialer{Deadline: until}
		if from.IsValid() {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
			d.Control = reactor.PortAtConnect
		}
		if conn, err = d.DialContext(ctx, "tcp", addr); !errors.Is(err, syscall.EADDRNOTAVAIL) {
			break
		}
	}
	return conn, err
}
