package systemtest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// The ws package of npm, as it comes.
func TestNodeClient(t *testing.T) {
	if _, err := os.Stat("testdata/js/node_modules/ws"); err != nil {
		t.Fatal("the ws package is not installed; run: make js")
	}
	c := newCluster(t, 3, 1)
	out, err := exec.CommandContext(t.Context(), "node", "testdata/js/chat.mjs", "ws://"+c.edges[0].addr).CombinedOutput()
	if err != nil || string(out) != "ok\n" {
		t.Fatalf("%v\n%s", err, out)
	}
}

// A client that does not wait for the 101: its first frames come in the same packet as the upgrade request.
func TestFirstFrameWithTheRequest(t *testing.T) {
	c := newCluster(t, 2, 1)
	for _, frames := range []int{1, 50} {
		conn, err := net.Dial("tcp", c.edges[0].addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		packet := []byte("GET /echo?user=alice HTTP/1.1\r\nHost: chat.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		for i := range frames {
			frame := ws.MaskFrame(ws.NewTextFrame(fmt.Appendf(nil, "early %d", i)))
			packet = append(packet, ws.MustCompileFrame(frame)...)
		}
		if _, err := conn.Write(packet); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		br := bufio.NewReader(conn)
		response, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusSwitchingProtocols || response.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
			t.Fatalf("%v; want a 101 with the accept key of RFC 6455", response)
		}
		for i := range frames {
			op, payload, err := readFrame(br)
			if want := fmt.Sprintf("early %d", i); err != nil || op != ws.OpText || string(payload) != want {
				t.Fatalf("got %v %q, %v; want %q", op, payload, err, want)
			}
		}
	}
}

// Plain HTTP of a user goes where the user's sessions are.
func TestPlainHTTPGoesToTheOwner(t *testing.T) {
	c := newCluster(t, 3, 1)
	users := userNames(30)
	for user, owner := range c.owners(users) {
		response, err := http.Get("http://" + c.edges[0].addr + "/whoami?user=" + user)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("%s: %v %v", user, response.Status, err)
		}
		var who struct{ User, Backend string }
		unmarshal(t, string(text), &who)
		if who.User != user || who.Backend != owner {
			t.Errorf("%s: answered by %+v; the ring says %s", user, who, owner)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}
