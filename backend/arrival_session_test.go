package backend

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/selvedge/selvedge/internal/discovery"
)

// A session that began on a loop is not taken for one whose client is leaving: each of its messages would cost a read more.
func TestArrivedSessionIsNotEnding(t *testing.T) {
	said := make(chan *Session, 1)
	b, err := New(Config{
		ID: "b1", Listen: "127.0.0.1:0", RPC: "127.0.0.1:0", Membership: Membership{Memory: discovery.NewMemory()},
		OnMessage: func(s *Session, _ Message) { said <- s },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	<-b.Ready()
	conn, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	var request strings.Builder
	request.WriteString("GET / HTTP/1.1\r\nHost: chat\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Selvedge-User: alice\r\n\r\n")
	if err := ws.WriteFrame(&request, ws.MaskFrame(ws.NewTextFrame([]byte("early")))); err != nil { // right behind the head
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte(request.String())); err != nil {
		t.Fatal(err)
	}
	if answer, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || answer.StatusCode != http.StatusSwitchingProtocols { //nolint:bodyclose // a 101 has none
		t.Fatal(answer, err)
	}
	s := <-said
	isEnding := make(chan bool, 1)
	s.loop.Post(func() { isEnding <- s.ending })
	if <-isEnding {
		t.Error("it is")
	}
	conn.Close()
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
