package edge

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// Who asks for much and reads nothing is let go of, and with it the connection to the backend. Who reads, however slowly, is not.
func TestClientsThatDoNotRead(t *testing.T) {
	fast(t)
	const grace = 500 * time.Millisecond
	ended := make(chan struct{}, 1)
	a := newAuthority(t)
	e := start(t, Config{Listen: []Listener{{Addr: "127.0.0.1:0"}, secureListener(a.leaf("edge.test"))},
		Membership: members(listenBackend(t, func(conn net.Conn, _ *bufio.Reader, r *http.Request) {
			if r.URL.Query().Get("user") == "patient" {
				say(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n%s", strings.Repeat("x", 2000000))
				return
			}
			_ = conn.SetDeadline(time.Time{})
			say(conn, "HTTP/1.1 200 OK\r\n\r\n")
			for part := make([]byte, 64<<10); ; {
				if _, err := conn.Write(part); err != nil {
					ended <- struct{}{}
					return
				}
			}
		}))}, func(e *Edge) { e.sendTimeout = grace })
	const ask = "GET /?user=a HTTP/1.1\r\nHost: edge.test\r\n\r\n"
	for name, send := range map[string]func(){
		"HTTP/1.1":          func() { e.send(ask) },
		"HTTP/1.1 over TLS": func() { e.at(1).sendTLS(a.client("edge.test"), ask) },
		"HTTP/2": func() {
			f := e.at(1).flooder(a)
			if err := errors.Join(f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1}), f.WriteWindowUpdate(0, 1<<30),
				f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.block(), EndStream: true, EndHeaders: true}), f.out.Flush()); err != nil {
				t.Fatal(err)
			}
		},
	} {
		e.nothingLeft(func() {
			send()
			select {
			case <-ended:
			case <-time.After(patience):
				t.Fatalf("%s: the backend still sends", name)
			}
			e.hangUp()
		})
	}
	c := e.send("GET /?user=patient HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n\r\n")
	got := c.head()
	began, n := time.Now(), int64(0)
	for tick := time.NewTicker(grace / 10); time.Since(began) < 3*grace; {
		<-tick.C
		m, err := io.CopyN(io.Discard, got.Body, 40<<10)
		if n += m; err != nil {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
	if m, err := io.Copy(io.Discard, got.Body); n+m != 2000000 {
		t.Errorf("a slow reader got %d bytes, %v", n+m, err)
	}
}
