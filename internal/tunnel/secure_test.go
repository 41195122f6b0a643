//go:build unix

package tunnel

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"testing"
	"time"
)

var tlsClient = mode{name: "TLS client", reactor: plain.reactor, tls: [2]bool{client: true}}

// TestTLSHasNoGoroutine weighs tunnels to TLS clients that have sent and got something, and counts what runs for them.
func TestTLSHasNoGoroutine(t *testing.T) {
	inMode(t, tlsClient, 1, Config{}, func(t *testing.T, r *rig) {
		const n = 100
		all := make([]*joined, n)
		before, goroutines := heap(), runtime.NumGoroutine()
		for i := range all {
			all[i] = r.join(t, early{})
			say(t, all[i].client, "ping")
			expect(t, all[i].backend, "ping")
			say(t, all[i].backend, "pong")
			expect(t, all[i].client, "pong")
		}
		if now := runtime.NumGoroutine(); now > goroutines {
			t.Errorf("%d goroutines for %d tunnels", now-goroutines, n)
		}
		// The far end of TLS costs as much as the near one, and package net has its part in the far ends.
		each := int64(heap()-before) / n
		t.Logf("%d bytes of heap for both ends of a session", each)
		if each > 24<<10 {
			t.Errorf("%d bytes of heap for both ends of a session, want twice 7 KiB and what the test holds", each)
		}
		for _, j := range all {
			j.end(t)
		}
	})
}

// TestTLSInPieces has records arrive byte by byte, so that each read ends in the middle of one.
func TestTLSInPieces(t *testing.T) {
	inMode(t, tlsClient, 1, Config{}, func(t *testing.T, r *rig) {
		farTCP, nearTCP := tcpConns(t)
		farBackend, nearBackend := tcpConns(t)
		pieces := &inPieces{Conn: farTCP}
		far, near := shake(t, pieces, NewWire(nearTCP), true)
		closed := make(chan Summary, 1)
		if _, err := r.relay.Join(End{Conn: near}, End{Conn: nearBackend}, func(s Summary) { closed <- s }); err != nil {
			t.Fatal(err)
		}
		pieces.size = 1
		say(t, far, "letter by letter")
		expect(t, farBackend, "letter by letter")
		_ = far.CloseWrite()
		expectError(t, farBackend, io.EOF)
		_ = farBackend.Close()
		expectError(t, far, io.EOF)
		_ = far.Close()
		if s := receive(t, closed); s.Reason != ClientClosed || s.Err != nil {
			t.Errorf("ended with %+v", s)
		}
	})
}

// inPieces writes pieces of a size, each when the one before has been taken in.
type inPieces struct {
	net.Conn
	size int // 0: all at once
}

func (c *inPieces) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		piece := p[n:]
		if c.size > 0 {
			piece = piece[:min(len(piece), c.size)]
			time.Sleep(100 * time.Microsecond) // so that pieces arrive apart; nothing waits for it
		}
		var m int
		m, err = c.Conn.Write(piece)
		n += m
	}
	return n, err
}

// TestTLSBroken sends what is no record, and a record that was tampered with: the session fails, and the other end learns it by a reset.
func TestTLSBroken(t *testing.T) {
	for name, bytes := range map[string][]byte{
		"no record": []byte("GET / HTTP/1.1\r\n\r\n"),
		"tampered":  append([]byte{23, 3, 3, 0, 32}, make([]byte, 32)...),
	} {
		t.Run(name, func(t *testing.T) {
			inMode(t, tlsClient, 1, Config{}, func(t *testing.T, r *rig) {
				j := r.join(t, early{})
				if _, err := j.client.(farTLS).tcp.Write(bytes); err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, j.backend); err == nil {
					t.Error("the backend saw an orderly end")
				}
				if s := j.end(t); s.Reason != Failed || s.Err == nil {
					t.Errorf("ended with %+v", s)
				}
			})
		})
	}
}

// TestTLSSlowReader bounds what a client that does not read can have a tunnel hold, and has it get every byte in the end.
func TestTLSSlowReader(t *testing.T) {
	inMode(t, tlsClient, 1, Config{}, func(t *testing.T, r *rig) {
		j := r.join(t, early{})
		sent := fill(t, j.backend)
		var owed int
		r.onLoop(t, 0, func(*shard) { owed = len(j.tunnel.user.tls[client].wire.owed) })
		if owed == 0 || owed > bufferSize+1<<10 {
			t.Errorf("%d bytes are owed to a client that does not read, want at most a buffer", owed)
		}
		say(t, j.client, "and yet it speaks")
		expect(t, j.backend, "and yet it speaks")
		_ = j.backend.CloseWrite()
		_ = j.client.SetReadDeadline(time.Now().Add(patience))
		source, got, at := rand.NewChaCha8([32]byte{42}), make([]byte, 64<<10), 0
		for want := make([]byte, 64<<10); ; {
			n, err := io.ReadFull(j.client, got)
			_, _ = source.Read(want)
			if !bytes.Equal(got[:n], want[:n]) {
				t.Fatalf("other bytes after %d", at)
			}
			if at += n; err != nil {
				break
			}
		}
		if at != sent {
			t.Errorf("%d of %d bytes arrived", at, sent)
		}
		j.end(t)
	})
}

// TestWireAfterTheTunnel has someone go on using a TLS connection whose tunnel has ended: the descriptor's number may be another's.
func TestWireAfterTheTunnel(t *testing.T) {
	inMode(t, tlsClient, 1, Config{}, func(t *testing.T, r *rig) {
		farTCP, nearTCP := tcpConns(t)
		farBackend, nearBackend := tcpConns(t)
		_, near := shake(t, farTCP, NewWire(nearTCP), true)
		closed := make(chan Summary, 1)
		if _, err := r.relay.Join(End{Conn: near}, End{Conn: nearBackend}, func(s Summary) { closed <- s }); err != nil {
			t.Fatal(err)
		}
		_ = farTCP.Close()
		_ = farBackend.Close()
		receive(t, closed)
		if _, err := near.NetConn().Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a write: %v", err)
		}
		if err := near.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Close: %v", err)
		}
	})
}

// TestTLSTakesTLS12 moves bytes with the older version, too.
func TestTLSTakesTLS12(t *testing.T) {
	inMode(t, tlsClient, 1, Config{}, func(t *testing.T, r *rig) {
		farTCP, nearTCP := tcpConns(t)
		farBackend, nearBackend := tcpConns(t)
		near := tls.Server(NewWire(nearTCP), &tls.Config{Certificates: certificate(), MaxVersion: tls.VersionTLS12})
		far := tls.Client(farTCP, &tls.Config{InsecureSkipVerify: true})
		shaken := make(chan error, 1)
		go func() { shaken <- near.Handshake() }()
		if err := errors.Join(far.Handshake(), receive(t, shaken)); err != nil {
			t.Fatal(err)
		}
		closed := make(chan Summary, 1)
		if _, err := r.relay.Join(End{Conn: near}, End{Conn: nearBackend}, func(s Summary) { closed <- s }); err != nil {
			t.Fatal(err)
		}
		say(t, far, "ping")
		expect(t, farBackend, "ping")
		_ = farBackend.Close()
		expectError(t, far, io.EOF)
		_ = far.Close()
		receive(t, closed)
	})
}
