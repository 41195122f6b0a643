package systemtest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/url"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/selvedge/selvedge/internal/testkit"
)

// The two programs of backend/PORTING.md, each with two servers, do what the guide says of them.

func TestPortingBefore(t *testing.T) {
	program := buildPorting(t, "before")
	redis := strconv.Itoa(testkit.FreePort(t))
	broker := startRedis(t, redis)
	var servers []string
	var first *process // alice's
	for _, name := range []string{"before 1", "before 2"} {
		p := startCommand(t, name, exec.Command(program, "-listen", "127.0.0.1:0", "-redis", "127.0.0.1:"+redis))
		p.waitLine("its address", func(line string) bool {
			_, addr, found := strings.Cut(line, "listening on ")
			if found {
				servers = append(servers, addr)
			}
			return found
		})
		if first == nil {
			first = p
		}
	}
	alice, bob := dialChat(t, servers[0], "alice"), dialChat(t, servers[1], "bob")
	until := func(what string) (lost bool) { // sends probes until one arrives, since subscriptions come back when they do
		lost = true
		testkit.Eventually(t, 20*time.Second, func() bool {
			alice.say("bob", what+" probe", "")
			for {
				got, ok := bob.read(300 * time.Millisecond)
				if !ok {
					return false
				}
				if got.Text == what {
					lost = false
				}
				if got.Text == what+" probe" {
					return true
				}
			}
		}, "the servers to hear of each other's messages: "+what)
		return lost
	}
	until("at first")
	alice.say("bob", "hello", "")
	if until("hello") {
		t.Error("with the broker up, the message is lost")
	}
	broker.kill()
	alice.say("bob", "while it is away", "")
	first.waitLine("that it cannot publish", func(line string) bool { return strings.Contains(line, "publish: ") }) // it alone hears of it
	startRedis(t, redis)
	if !until("while it is away") {
		t.Error("without the broker, the message has arrived: the guide says that it is lost")
	}
}

func startRedis(t *testing.T, port string) *process {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatal("no redis-server; `make deps` installs it")
	}
	p := startCommand(t, "redis", exec.Command(path, "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir()))
	p.waitLine("readiness", func(line string) bool { return strings.Contains(line, "Ready to accept connections") })
	return p
}

func TestPortingAfter(t *testing.T) {
	program, store := buildPorting(t, "after"), t.TempDir()
	type server struct{ id, addr, rpc string }
	var servers []server
	var list []string
	for _, id := range []string{"n1", "n2"} {
		s := server{id, strconv.Itoa(testkit.FreePort(t)), strconv.Itoa(testkit.FreePort(t))}
		servers = append(servers, s)
		list = append(list, fmt.Sprintf("%s=127.0.0.1:%s/%s", id, s.addr, s.rpc))
	}
	members := strings.Join(list, ",")
	running := make(map[string]*process)
	for _, s := range servers {
		running[s.id] = startCommand(t, s.id, exec.Command(program, "-id", s.id, "-listen", "127.0.0.1:"+s.addr, "-rpc", "127.0.0.1:"+s.rpc,
			"-backends", members, "-store", store))
	}
	for _, p := range running {
		p.waitLine("that it serves", func(line string) bool { return strings.Contains(line, "serving") })
	}
	edge := startEdge(t, "edge", "--backends", members)
	homes := owners(t, userNames(50), "--backends", members)
	var alice, bob string // at home with different servers
	for user, home := range homes {
		if home == "n1" {
			alice = user
		} else {
			bob = user
		}
	}
	sending, phone := dialChat(t, edge.addr, alice), dialChat(t, edge.addr, alice)
	receiving := dialChat(t, edge.addr, bob)

	// From server to server without a broker, with an answer; the sender's other device has a copy.
	if a := sending.deliver(bob, "hello", "1"); a.Sessions != 1 {
		t.Errorf("%+v; want one session", a)
	}
	for _, c := range []*chatClient{receiving, phone} {
		if got, _ := c.read(5 * time.Second); got.Text != "hello" || got.From != alice {
			t.Errorf("%s got %+v", c.user, got)
		}
	}
	// Nobody is there: it is kept, and handed out when he comes, once.
	receiving.conn.Close()
	testkit.Eventually(t, 10*time.Second, func() bool {
		lines, _ := runJSON[pushedPresence](t, "presence", bob, "--via", "http://127.0.0.1:"+servers[0].rpc)
		return len(lines) == 1 && len(lines[0].Sessions) == 0
	}, bob+" to be gone")
	longest := strings.Repeat("2", 128-len(alice+"/")) // as long as an id may be, and longer than a file's name once it is escaped
	if a := sending.deliver(bob, "while you were away", longest); a.Sessions != 0 {
		t.Errorf("%+v; want it to be kept", a)
	}
	receiving = dialChat(t, edge.addr, bob)
	if got, _ := receiving.read(5 * time.Second); got.Text != "while you were away" {
		t.Errorf("%s got %+v when he came back", bob, got)
	}
	// His server dies. Whatever is sent meanwhile is delivered or kept, or the client is told to send it again.
	running["n2"].kill()
	sending.deliver(bob, "with one server left", "3")
	receiving = dialChat(t, edge.addr, bob)
	got, _ := receiving.read(10 * time.Second)
	if got.Text == "while you were away" { // his server died before it could forget what it had handed out; a client knows the id
		got, _ = receiving.read(10 * time.Second)
	}
	if got.Text != "with one server left" {
		t.Errorf("%s got %+v after his server died", bob, got)
	}
	if got, more := receiving.read(300 * time.Millisecond); more {
		t.Errorf("%s got %+v, which is one too many", bob, got)
	}
}

type pushedPresence struct {
	Sessions []struct{ ID string } `json:"sessions"`
}

func buildPorting(t *testing.T, name string) (program string) {
	t.Helper()
	program = filepath.Join(t.TempDir(), name)
	cmd := exec.Command("go", "build", "-o", program, ".")
	cmd.Dir = "../../backend/testdata/porting/" + name
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// chatClient is one device of a user of the chat.
type chatClient struct {
	t    *testing.T
	user string
	conn net.Conn
	in   chan chatMessage
}

// chatMessage is whatever a server sends.
type chatMessage struct {
	From, To, Text string
	ID             string
	Ack            string
	Sessions       int
	Error          string
}

func dialChat(t *testing.T, addr, user string) *chatClient {
	t.Helper()
	var conn net.Conn
	var ahead *bufio.Reader
	testkit.Eventually(t, 15*time.Second, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		var err error
		conn, ahead, _, err = ws.Dial(ctx, "ws://"+addr+"/ws?user="+url.QueryEscape(user))
		return err
	}, "a connection of "+user)
	c := &chatClient{t, user, conn, make(chan chatMessage, 100)}
	if ahead == nil {
		ahead = bufio.NewReader(conn)
	}
	ended := make(chan struct{})
	t.Cleanup(func() { conn.Close(); <-ended })
	go func() {
		defer close(ended)
		for {
			text, err := wsutil.ReadServerText(struct {
				io.Reader
				io.Writer
			}{ahead, conn})
			if err != nil {
				return
			}
			var m chatMessage
			if json.Unmarshal(text, &m) == nil {
				c.in <- m
			}
		}
	}()
	return c
}

func (c *chatClient) say(to, text, id string) {
	c.t.Helper()
	data, _ := json.Marshal(map[string]string{"to": to, "text": text, "id": id})
	if err := wsutil.WriteClientText(c.conn, data); err != nil {
		c.t.Fatal(err)
	}
}

func (c *chatClient) read(within time.Duration) (m chatMessage, ok bool) {
	select {
	case m = <-c.in:
		return m, true
	case <-time.After(within):
		return m, false
	}
}

// deliver says it again, as a client should, until the server has an answer.
func (c *chatClient) deliver(to, text, id string) (ack chatMessage) {
	c.t.Helper()
	testkit.Eventually(c.t, 30*time.Second, func() error {
		c.say(to, text, id)
		if ack, _ = c.read(10 * time.Second); ack.Ack != id {
			return fmt.Errorf("answer %+v", ack)
		}
		if ack.Error != "" {
			return fmt.Errorf("not certain: %s", ack.Error)
		}
		return nil
	}, "an answer to message "+id)
	return ack
}
