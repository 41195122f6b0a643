package systemtest

import (
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/selvedge/selvedge/internal/testkit"
)

const (
	socketIOUsers  = 300
	socketIOWithin = 5 * time.Second  // for who is cut off to be back, 19 of 20 at least
	socketIOBusy   = 15 * time.Second // for the rest: a machine that is busy with other things may keep some waiting
)

// socket.io as its authors ship it, three nodes behind two edges, with its three transport settings at once and no cookies: a node is killed and
// another added, which nobody notices whose owner is the same; the others are back in time; and users write to each other all the while.
func TestSocketIO(t *testing.T) {
	c := &cluster{t: t, consul: testkit.StartConsul(t), backends: make(map[string]*member)}
	config := filepath.Join(t.TempDir(), "edge.yaml")
	writeFile(t, config, "services: {default: {on_move: close}}\n")
	for i := range 2 {
		c.addEdge(fmt.Sprintf("edge %d", i+1), "--config", config, "--consul", c.consul.Addr)
	}
	nodes := make(map[string]*process) // by member id
	add := func(i int) string {
		p, id := startSocketIO(t, c, fmt.Sprintf("s%d", i), c.edges[i%2].addr)
		nodes[id] = p
		return id
	}
	for i := range 3 {
		add(i + 1)
	}
	c.awaitRing(3)
	wantNoCookie(t, c.edges[0].addr)

	users := userNames(socketIOUsers)
	crowd := startSocketIOUsers(t, len(users), c.edges)
	at := func() (missing error) {
		owner, held := c.owners(users), crowd.held()
		away := 0
		for _, user := range users {
			if owner[user] != "testkit/"+held[user].Node {
				away++
				missing = fmt.Errorf("%d, such as %s: at %+v, owner %s", away, user, held[user], owner[user])
			}
		}
		return missing
	}
	testkit.Eventually(t, 60*time.Second, at, "all users to be connected, at their owners")
	for i, transport := range []string{"websocket", "websocket", "polling"} { // the first of them by an upgrade
		testkit.Eventually(t, 20*time.Second, func() error {
			for user := i; user < len(users); user += 3 {
				if s := crowd.held()[users[user]]; s.Transport != transport {
					return fmt.Errorf("%s: %+v", users[user], s)
				}
			}
			return nil
		}, transport)
	}

	settled := make(map[string]bool) // users who never moved
	for _, user := range users {
		settled[user] = true
	}
	change := func(what string, do func()) {
		t.Helper()
		owner, before, began := c.owners(users), crowd.held(), time.Now()
		do()
		testkit.Eventually(t, 60*time.Second, at, "all users to be at their owners after "+what)
		next, after := c.owners(users), crowd.held()
		moved, late := 0, 0
		var slowest time.Duration
		since := crowd.since(began)
		for _, user := range users {
			if owner[user] == next[user] {
				if before[user].Sid != after[user].Sid {
					t.Errorf("%s: %s did not move, and has another session: %+v", what, user, since[user])
				}
				for _, e := range since[user] {
					if e.Event == "error" || e.Event == "disconnect" {
						t.Errorf("%s: %s did not move, and: %+v", what, user, e)
					}
				}
				continue
			}
			moved++
			delete(settled, user)
			var cut int64
			for _, e := range since[user] {
				switch {
				case e.Event == "disconnect" && cut == 0:
					cut = e.At
				case e.Event == "welcome" && cut != 0:
					took := time.Duration(e.At-cut) * time.Millisecond
					slowest = max(slowest, took)
					if took > socketIOWithin {
						late++
					}
					if took > socketIOBusy {
						t.Errorf("%s: %s was away for %v: %+v", what, user, took, since[user])
					}
					cut = 0
				}
			}
		}
		t.Logf("%s: %d of %d users moved; the slowest was away for %v; all were at their owners after %v", what, moved, len(users), slowest,
			ms(time.Since(began)))
		if late > moved/20 {
			t.Errorf("%s: %d users were away for more than %v", what, late, socketIOWithin)
		}
		if moved == 0 || moved == len(users) {
			t.Errorf("%s: %d users moved: this shows nothing", what, moved)
		}
	}
	change("a kill", func() { nodes["testkit/s2"].kill(); c.awaitRing(2) })
	change("an addition", func() { add(4); c.awaitRing(3) })
	crowd.judge(t, settled)
}

// startSocketIO starts a node and has Consul look after it.
func startSocketIO(t *testing.T, c *cluster, name, edge string) (p *process, id string) {
	t.Helper()
	cmd := exec.Command("node", "testdata/js/socketio-server.mjs", name, "http://"+edge)
	stdin, err := cmd.StdinPipe() // open until the test ends
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close() })
	p = startCommand(t, name, cmd)
	var port int
	p.waitLine("port", func(line string) bool {
		text, ok := strings.CutPrefix(line, "listening ")
		port, err = strconv.Atoi(text)
		return ok && err == nil
	})
	err = c.consul.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: name, Name: "default", Address: "127.0.0.1", Port: port,
		Check: &api.AgentServiceCheck{TCP: fmt.Sprint("127.0.0.1:", port), Interval: "1s", Timeout: "1s", Status: api.HealthPassing},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p, "testkit/" + name
}

// wantNoCookie fails where a handshake by polling brings a cookie: what keeps users where they are is not that.
func wantNoCookie(t *testing.T, edge string) {
	t.Helper()
	answer, err := http.Get("http://" + edge + "/socket.io/?EIO=4&transport=polling&user=somebody")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(answer.Body)
	answer.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if answer.StatusCode != http.StatusOK || !strings.Contains(string(body), `"sid"`) || len(answer.Cookies()) > 0 {
		t.Errorf("%s %v %s; want a handshake without cookies", answer.Status, answer.Header, body)
	}
}

// socketIOCrowd is the users of socketio-clients.mjs, and what has happened to them.
type socketIOCrowd struct{ *program[socketIOEvent] }

type socketIOEvent struct {
	At                                                  int64 // ms
	User, Event, Node, Sid, Transport, Text, To, Reason string
}

func startSocketIOUsers(t *testing.T, n int, edges []*frontDoor) *socketIOCrowd {
	t.Helper()
	args := []string{strconv.Itoa(n)}
	for _, e := range edges {
		args = append(args, "http://"+e.addr)
	}
	return &socketIOCrowd{runProgram[socketIOEvent](t, "socketio-clients.mjs", args...)}
}

func (crowd *socketIOCrowd) since(then time.Time) map[string][]socketIOEvent {
	of := make(map[string][]socketIOEvent)
	for _, e := range crowd.events() {
		if e.At >= then.UnixMilli() {
			of[e.User] = append(of[e.User], e)
		}
	}
	return of
}

// held is each user's session.
func (crowd *socketIOCrowd) held() map[string]socketIOEvent {
	held := make(map[string]socketIOEvent)
	for user, events := range crowd.since(time.Time{}) {
		for _, e := range events {
			switch e.Event {
			case "welcome":
				held[user] = e
			case "upgrade":
				s := held[user]
				s.Transport = e.Transport
				held[user] = s
			case "disconnect":
				delete(held, user)
			}
		}
	}
	return held
}

// judge waits until what has been said has been heard, and fails where it was not: once, by whom it was for, all of it between users who never
// moved, and something all the time. A sender or a reader who moved may have taken a message along, which socket.io does not send again.
func (crowd *socketIOCrowd) judge(t *testing.T, settled map[string]bool) {
	t.Helper()
	if _, err := io.WriteString(crowd.stdin, "enough\n"); err != nil {
		t.Fatal(err)
	}
	type message struct{ said, heard socketIOEvent }
	read := func() (messages map[string]*message, twice int) {
		messages = make(map[string]*message)
		for _, e := range crowd.events() {
			switch m := messages[e.Text]; {
			case e.Event == "said":
				messages[e.Text] = &message{said: e}
			case e.Event == "heard" && m.heard.At > 0:
				twice++
			case e.Event == "heard":
				m.heard = e
			}
		}
		return messages, twice
	}
	testkit.Eventually(t, 30*time.Second, func() error {
		messages, _ := read()
		for _, m := range messages {
			if settled[m.said.User] && settled[m.said.To] && m.heard.At == 0 {
				return fmt.Errorf("%+v was not heard", m.said)
			}
		}
		return nil
	}, "all that users said to each other who never moved to be heard")
	messages, twice := read()
	var ofSettled, lost int
	var slowest, silence time.Duration
	var heard int64 // when something was heard last, by anybody
	for _, e := range crowd.events() {
		if e.Event == "heard" {
			if heard > 0 {
				silence = max(silence, time.Duration(e.At-heard)*time.Millisecond)
			}
			heard = e.At
		}
	}
	for text, m := range messages {
		switch {
		case m.heard.At == 0:
			lost++
		case m.heard.User != m.said.To:
			t.Errorf("%s was for %s, and heard by %s", text, m.said.To, m.heard.User)
		case settled[m.said.User] && settled[m.said.To]:
			ofSettled++
			slowest = max(slowest, time.Duration(m.heard.At-m.said.At)*time.Millisecond)
		}
	}
	t.Logf("%d messages, %d heard twice, %d lost with a user who moved; of %d between users who never did, the slowest took %v; silence for %v at most",
		len(messages), twice, lost, ofSettled, slowest, silence)
	if ofSettled == 0 || twice > 0 {
		t.Error("want messages between users who never moved, and none twice")
	}
	if slowest > socketIOBusy || silence > socketIOWithin {
		t.Errorf("a message between users who never moved took %v, and nothing was heard for %v", slowest, silence)
	}
	if lost > len(messages)/20 {
		t.Errorf("%d of %d messages were lost", lost, len(messages))
	}
}
