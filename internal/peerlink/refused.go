package peerlink

import (
	"context"
	"errors"
	"net"
	"syscall"

	"github.com/selvedge/selvedge/internal/rpc"
)

// refused tells whether nobody listens at addr, after a stream to it ended with err before it was accepted.
//
// A refused connection says so by itself where addr is an IP address. Where it is a name, err tells of one of its addresses only. And
// a connection that was reset may have been in the listener's queue when the process was killed: the kernel closes a dead process's
// files one after another, so a caller who is told by his old connection can be early for the listener. Then this looks again.
func refused(ctx context.Context, addr string, err error) bool {
	host, port, splitErr := net.SplitHostPort(addr)
	if splitErr != nil {
		return false
	}
	switch dialling := dialling(err); {
	case dialling && errors.Is(err, syscall.ECONNREFUSED) && net.ParseIP(host) != nil:
		return true
	case dialling && !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ECONNRESET):
		return false // timed out, or unreachable
	}
	ctx, cancel := context.WithTimeout(ctx, rpc.DialTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return false
	}
	for _, ip := range ips {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(ip, port))
		if err == nil {
			conn.Close()
			return false
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return false
		}
	}
	return true
}

// dialling tells whether err came before there was a connection.
func dialling(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
