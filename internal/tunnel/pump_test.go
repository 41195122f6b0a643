//go:build unix

package tunnel

import (
	"bytes"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"
	"time"
)

// tlsConns is tcpConns under TLS, without a wire: the far end is a client's.
func tlsConns(t *testing.T) (far, near *tls.Conn) {
	t.Helper()
	farTCP, nearTCP := tcpConns(t)
	return shake(t, farTCP, nearTCP, true)
}

// pumpTLS makes a tunnel from a TLS client to a plain backend.
func (r *rig) pumpTLS(t *testing.T) (farClient *tls.Conn, farBackend *net.TCPConn, closed chan Summary) {
	t.Helper()
	farClient, nearClient := tlsConns(t)
	farBackend, nearBackend := tcpConns(t)
	closed = make(chan Summary, 1)
	if _, err := r.relay.Join(End{Conn: nearClient}, End{Conn: nearBackend}, func(s Summary) { closed <- s }); err != nil {
		t.Fatal(err)
	}
	return farClient, farBackend, closed
}

var plain = modes[0]

func TestTLS(t *testing.T) {
	inMode(t, plain, 1, Config{}, func(t *testing.T, r *rig) {
		c, b, closed := r.pumpTLS(t)
		for range 3 {
			say(t, c, "ping")
			expect(t, b, "ping")
			say(t, b, "pong")
			expect(t, c, "pong")
		}
		bulk := make([]byte, 3<<20)
		_, _ = rand.NewChaCha8([32]byte{3}).Read(bulk)
		go func() { _, _ = b.Write(bulk) }()
		got := make([]byte, len(bulk))
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, bulk) {
			t.Fatalf("bulk: %v, the same: %v", err, bytes.Equal(got, bulk))
		}
		_ = c.CloseWrite()
		expectError(t, b, io.EOF)
		say(t, b, "after")
		expect(t, c, "after")
		_ = b.Close()
		expectError(t, c, io.EOF)
		if s := receive(t, closed); s.Reason != ClientClosed || s.Err != nil || s.ToBackend != 12 || s.ToClient != int64(len(bulk))+17 {
			t.Errorf("ended with %+v", s)
		}
		_ = c.Close()
	})
}

func TestTLSClientThatDoesNotSayGoodbye(t *testing.T) {
	tests := map[string]struct {
		leave func(tcp *net.TCPConn)
		want  Reason
		sees  error
	}{
		"FIN":   {func(tcp *net.TCPConn) { _ = tcp.Close() }, ClientClosed, io.EOF},
		"reset": {func(tcp *net.TCPConn) { _ = tcp.SetLinger(0); _ = tcp.Close() }, ClientReset, syscall.ECONNRESET},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			inMode(t, plain, 1, Config{}, func(t *testing.T, r *rig) {
				c, b, closed := r.pumpTLS(t)
				say(t, c, "x")
				expect(t, b, "x")
				tt.leave(c.NetConn().(*net.TCPConn))
				expectError(t, b, tt.sees)
				_ = b.Close()
				if s := receive(t, closed); s.Reason != tt.want {
					t.Errorf("ended with %v, %v, want %v", s.Reason, s.Err, tt.want)
				}
			})
		})
	}
}

func TestTLSCut(t *testing.T) {
	inMode(t, plain, 1, Config{}, func(t *testing.T, r *rig) {
		c, nearClient := tlsConns(t)
		b, nearBackend := tcpConns(t)
		closed := make(chan Summary, 1)
		tunnel, err := r.relay.Join(End{Conn: nearClient}, End{Conn: nearBackend}, func(s Summary) { closed <- s })
		if err != nil {
			t.Fatal(err)
		}
		say(t, b, "taken")
		expect(t, c, "taken")
		tunnel.Close(Moved)
		expectError(t, c, io.EOF) // close_notify, so that the client knows that it has everything
		expectError(t, b, io.EOF)
		_ = c.Close()
		_ = b.Close()
		if s := receive(t, closed); s.Reason != Moved {
			t.Errorf("ended with %v, %v", s.Reason, s.Err)
		}
	})
}

// TestWithoutHalfClose joins a net.Pipe, which can only be closed altogether.
func TestWithoutHalfClose(t *testing.T) {
	inMode(t, plain, 1, Config{}, func(t *testing.T, r *rig) {
		farClient, nearClient := net.Pipe()
		farBackend, nearBackend := tcpConns(t)
		closed := make(chan Summary, 1)
		_, err := r.relay.Join(End{Conn: nearClient, Early: []byte("first ")}, End{Conn: nearBackend}, func(s Summary) { closed <- s })
		if err != nil {
			t.Fatal(err)
		}
		say(t, farClient, "second")
		expect(t, farBackend, "first second")
		say(t, farBackend, "bye")
		_ = farBackend.CloseWrite()
		expect(t, farClient, "bye")
		expectError(t, farClient, io.EOF)
		_ = farBackend.Close()
		if s := receive(t, closed); s.Reason != BackendClosed || s.ToBackend != 12 || s.ToClient != 3 {
			t.Errorf("ended with %+v", s)
		}
		_ = farClient.Close()
	})
}

func TestPumpBlockedInWriteIsCut(t *testing.T) {
	inMode(t, plain, 1, Config{}, func(t *testing.T, r *rig) {
		farClient, nearClient := tlsConns(t)
		farBackend, nearBackend := tcpConns(t)
		closed := make(chan Summary, 1)
		tunnel, err := r.relay.Join(End{Conn: nearClient}, End{Conn: nearBackend}, func(s Summary) { closed <- s })
		if err != nil {
			t.Fatal(err)
		}
		fill(t, farBackend)
		began := time.Now()
		tunnel.Close(Drained)
		if s := receive(t, closed); s.Reason != Drained || time.Since(began) > lingerTime+5*time.Second {
			t.Errorf("ended with %v after %v", s.Reason, time.Since(began))
		}
		_ = farClient.NetConn().Close()
		_ = farBackend.Close()
	})
}
