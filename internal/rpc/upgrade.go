package rpc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// ErrNotUpgraded is returned by [Upgrade] where the server answered, but does not know the protocol or refuses: call it by HTTP/2 instead, and
// it will say what it has to say.
var ErrNotUpgraded = errors.New("the server did not change protocols")

// Upgrade opens a connection to addr and changes it to protocol by an HTTP/1.1 request for path. What is read comes by in.
func Upgrade(ctx context.Context, addr, path, protocol, token string) (_ net.Conn, in *bufio.Reader, err error) {
	dialer := net.Dialer{Timeout: DialTimeout, KeepAlive: 15 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := conn.SetDeadline(time.Now().Add(headTimeout)); err != nil {
		return nil, nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, http.NoBody)
	if err != nil {
		return nil, nil, err
	}
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", protocol)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if err := r.Write(conn); err != nil {
		return nil, nil, err
	}
	in = bufio.NewReader(conn)
	response, err := http.ReadResponse(in, r)
	if err != nil {
		return nil, nil, err
	}
	_ = response.Body.Close() // of a 101 it is empty, else the connection ends
	if response.StatusCode != http.StatusSwitchingProtocols || response.Header.Get("Upgrade") != protocol {
		return nil, nil, fmt.Errorf("%w: %s", ErrNotUpgraded, response.Status)
	}
	return conn, in, conn.SetDeadline(time.Time{})
}

// IsUpgrade tells whether a request is one of [Upgrade].
func IsUpgrade(r *http.Request, protocol string) bool {
	return r.ProtoMajor == 1 && r.Header.Get("Upgrade") == protocol
}

// Accept grants an upgrade: the connection is the caller's, who closes it. On an error the request has been answered.
func Accept(w http.ResponseWriter, protocol string) (conn net.Conn, in *bufio.Reader, err error) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "this connection cannot change protocols", http.StatusInternalServerError)
		return nil, nil, err
	}
	if err = conn.SetDeadline(time.Time{}); err == nil {
		_, err = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+protocol+"\r\n\r\n")
	}
	if err != nil {
		_ = conn.Close()
	}
	return conn, buffered.Reader, err
}
