package systemtest

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/testkit"
)

// bridgeRun is how much passes through a bridge. SELVEDGE_BRIDGE=10000 in the environment is the full size.
type bridgeRun struct{ messages, kills int }

func newBridgeRun(t *testing.T) bridgeRun {
	t.Helper()
	text := os.Getenv("SELVEDGE_BRIDGE")
	if text == "" {
		return bridgeRun{messages: 1500, kills: 1}
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 100 {
		t.Fatalf("SELVEDGE_BRIDGE=%s: want a number of messages, 100 or more", text)
	}
	return bridgeRun{messages: n, kills: 3}
}

// broker is one that keeps messages, as a publisher and an operator see it.
type broker interface {
	flags() []string
	// publish returns when the broker has the messages for certain. first is the number of the first of them, which makes their ids.
	publish(t *testing.T, first int, bodies []string)
	// letters takes all that was put aside in a place, and returns the bodies by the user that they were for.
	letters(t *testing.T, place string) map[string][]string
	// left is how many messages are not acknowledged.
	left(t *testing.T) int
}

func TestBridgeFromRabbitMQ(t *testing.T)    { testBridge(t, startRabbit) }
func TestBridgeFromRedisStream(t *testing.T) { testBridge(t, startRedisStream) }
func TestBridgeFromJetStream(t *testing.T)   { testBridge(t, startJetStream) }

const (
	bridgeUsers     = 60
	publishedAtOnce = 100
)

// bridgeBody is a message as it is published.
func bridgeBody(user string, n int) string { return fmt.Sprintf(`{"to":%q,"text":"m%d"}`, user, n) }

// While messages are published, two bridges that share them are killed in turn and started again, and a backend is killed: every message reaches its
// user, no session gets one twice, and who was offline has it among the dead letters. A kill comes when the bridge has messages that it
// has not acknowledged, whatever the speed of the machine: a backend is stopped for that moment.
func testBridge(t *testing.T, start func(*testing.T) broker) {
	t.Parallel() // they wait, mostly
	run := newBridgeRun(t)
	from, c := start(t), newCluster(t, 3, 1)
	users := userNames(bridgeUsers)
	door := &node{process: c.edges[0].process, id: "edge 1", host: &host{listen: c.edges[0].addr}}
	all := connectAll(users, 1, []*node{door})
	defer all.close()
	testkit.Eventually(t, 30*time.Second, func() bool {
		for _, client := range all.list {
			if _, online := client.present(); !online {
				return false
			}
		}
		return true
	}, "all users to be online")

	args := append([]string{"bridge", "--user", "json:to", "--payload", "json:text", "--offline", "dead-letter", "--admin", "127.0.0.1:0",
		"--consul", c.consul.Addr}, from.flags()...)
	bridges := []*bridgeProcess{startBridge(t, "bridge 1", args...), startBridge(t, "bridge 2", args...)}

	parts := make(chan int, run.kills+1) // how many messages shall have been published
	done := make(chan struct{})
	go func() {
		defer close(done)
		published := 0
		for upTo := range parts {
			for published < upTo {
				var bodies []string
				for i := published; i < min(published+publishedAtOnce, upTo); i++ {
					bodies = append(bodies, bridgeBody(users[i%len(users)], i))
				}
				from.publish(t, published, bodies)
				published += len(bodies)
			}
		}
	}()
	finish := sync.OnceFunc(func() { close(parts); <-done })
	defer finish()
	publish := func(part int) { parts <- part * run.messages / (run.kills + 1) }

	got := func() (messages int) {
		for _, client := range all.list {
			client.mu.Lock()
			for _, s := range client.log {
				messages += len(s.got)
			}
			client.mu.Unlock()
		}
		return messages
	}
	redelivered := 0.0
	publish(1)
	victim, halted := c.backends["b2"], c.backends["b3"]
	for i := range run.kills {
		b := bridges[i%len(bridges)]
		halted.signal(syscall.SIGSTOP) // what is for its users stays in flight
		publish(i + 2)
		held, arrived := 0.0, 0
		testkit.Eventually(t, 60*time.Second, func() error {
			wasHeld, had := held, arrived
			if held, arrived = b.metric("selvedge_bridge_in_flight", ""), got(); held == 0 || held != wasHeld || arrived != had {
				return fmt.Errorf("%v in flight, %d arrived", held, arrived)
			}
			return nil
		}, "the bridge to have nothing but messages for "+halted.name)
		redelivered += b.metric("selvedge_bridge_redeliveries_total", "")
		b.kill()
		halted.signal(syscall.SIGCONT)
		bridges[i%len(bridges)] = startBridge(t, b.name, args...)
		if i == run.kills/2 {
			victim.kill()
		}
	}
	finish()
	testkit.Eventually(t, 120*time.Second, func() error {
		n := float64(from.left(t))
		for _, b := range bridges { // RabbitMQ does not count what is in them
			n += b.metric("selvedge_bridge_in_flight", "")
		}
		if n > 0 {
			return fmt.Errorf("%v are left", n)
		}
		return nil
	}, "every message to be acknowledged")
	for _, b := range bridges {
		redelivered += b.metric("selvedge_bridge_redeliveries_total", "")
		b.drain()
	}
	if n := from.left(t); n != 0 {
		t.Errorf("%d messages are left behind a drain", n)
	}
	all.close()
	judgeBridge(t, run, users, all.sessions(), from, redelivered)
}

// judgeBridge counts what became of each message.
func judgeBridge(t *testing.T, run bridgeRun, users []string, sessions []*session, from broker, redelivered float64) {
	t.Helper()
	reached := make(map[string]int) // message: sessions that got it
	broken := make(map[string]bool) // users who were away for a moment
	twice := 0
	for _, s := range sessions {
		seen := make(map[string]bool)
		for _, r := range s.got {
			if seen[r.id] {
				twice++
			}
			seen[r.id] = true
			reached[r.id]++
		}
		if s.cause == broke || s.cause == told {
			broken[s.user] = true
		}
	}
	dead := make(map[string]bool)
	for user, bodies := range from.letters(t, "offline") {
		for _, body := range bodies {
			var m struct{ To, Text string }
			if err := json.Unmarshal([]byte(body), &m); err != nil || m.To != user {
				t.Errorf("a dead letter for %s: %s, %v", user, body, err)
			}
			dead[m.Text] = true
			if !broken[user] {
				t.Errorf("%s, who was online throughout, has %s among the dead letters", user, m.Text)
			}
		}
	}
	if parked := from.letters(t, "parked"); len(parked) > 0 {
		t.Errorf("parked: %v", parked)
	}
	var lost []string
	again := 0 // by sessions of one user after each other
	for i := range run.messages {
		text := fmt.Sprintf("m%d", i)
		if reached[text] == 0 && !dead[text] {
			lost = append(lost, users[i%len(users)]+": "+text)
		}
		if reached[text] > 1 {
			again++
		}
	}
	t.Logf("%d messages to %d users, %d kills of a bridge, one of a backend with %d users: %d redelivered by the broker; "+
		"%d lost, %d twice to one session, %d to two sessions of a user one after the other, %d dead letters",
		run.messages, len(users), run.kills, len(broken), int(redelivered), len(lost), twice, again, len(dead))
	if len(lost) > 0 || twice > 0 {
		t.Errorf("lost: %q; twice: %d", lost, twice)
	}
	if redelivered == 0 || len(broken) == 0 || len(broken) == len(users) {
		t.Errorf("%v redelivered, %d of %d users cut off: the kills have not shown anything", redelivered, len(broken), len(users))
	}
}

// bridgeProcess is a running `selvedge bridge`.
type bridgeProcess struct {
	*frontDoor // its admin alone
}

func startBridge(t *testing.T, name string, args ...string) *bridgeProcess {
	t.Helper()
	p := start(t, name, args...)
	admin := p.waitLog("operator's listener")["admin"].(string)
	p.waitLog("reading the broker")
	return &bridgeProcess{&frontDoor{process: p, admin: admin}}
}

// drain is SIGTERM, and the end that follows.
func (b *bridgeProcess) drain() {
	b.t.Helper()
	b.signal(syscall.SIGTERM)
	if code := b.wait(30 * time.Second); code != 0 {
		b.t.Errorf("%s ends with %d:\n%s", b.name, code, b.tail(20))
	}
}
