package bridge

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/testkit"
)

// sent is a message as a publisher sends it, and as it is put aside.
type sent struct {
	body, id string
	headers  map[string]string
}

// keeper is a source in a broker that keeps messages, as publishers and operators see it.
type keeper interface {
	config() Config
	publish(sent)
	// aside takes a message that was put aside.
	aside(place string) (sent, error)
	// left is how many messages have not been acknowledged.
	left() (int, error)
}

func wantsAside(t testing.TB, k keeper, place string) (s sent) {
	t.Helper()
	testkit.Eventually(t, 20*time.Second, func() (err error) {
		s, err = k.aside(place)
		return err
	}, "a message in "+place)
	return s
}

func wantsNoneLeft(t testing.TB, k keeper) {
	t.Helper()
	testkit.Eventually(t, 20*time.Second, func() error {
		n, err := k.left()
		if err == nil && n != 0 {
			err = fmt.Errorf("%d are left", n)
		}
		return err
	}, "every message to be acknowledged")
}

// wantMisuse runs a bridge that must end by itself.
func wantMisuse(t testing.TB, cfg Config, says string) {
	t.Helper()
	cfg.Sender.Via = "http://127.0.0.1:1"
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := b.Run(ctx); !errors.Is(err, errMisuse) || !strings.Contains(err.Error(), says) {
		t.Errorf("%v; want that it says %q", err, says)
	}
}

// testKeeping is what holds for every broker that keeps messages.
func testKeeping(t *testing.T, open func(t *testing.T, name string) keeper, broker *testkit.Broker) {
	t.Run("users and payloads", func(t *testing.T) {
		k, m := open(t, "users"), newMember(t)
		alice, bob := m.Connect("alice"), m.Connect("7")
		cfg := k.config()
		cfg.User, cfg.Payload = "json:to,header:to,all", "json:text,header:text"
		b := runBridge(t, m, cfg)
		k.publish(sent{body: `{"to":"alice","text":"one"}`, id: "1"})
		wants(t, alice, "one")
		k.publish(sent{body: `{"to":["alice",7,"nobody"],"text":{"many":true}}`, id: "2"})
		wants(t, alice, `{"many":true}`)
		wants(t, bob, `{"many":true}`)
		k.publish(sent{body: `{}`, id: "3", headers: map[string]string{"to": "alice", "text": "by header"}})
		wants(t, alice, "by header")
		k.publish(sent{body: `{"text":"all"}`, id: "4"})
		wants(t, alice, "all")
		wants(t, bob, "all")
		k.publish(sent{body: `{"to":"nobody","text":"?"}`, id: "5"})
		b.counts("messages_total", "outcome=delivered", 4)
		b.counts("messages_total", "outcome=offline", 1)
		wantsNoneLeft(t, k)
	})

	t.Run("put aside", func(t *testing.T) {
		k, m := open(t, "aside"), newMember(t)
		alice := m.Connect("alice")
		cfg := k.config()
		cfg.Payload, cfg.DeadLetterOffline = "json:text", true
		b := runBridge(t, m, cfg)
		k.publish(sent{body: `{"user":"alice"`, id: "1"})
		k.publish(sent{body: `{"text":"for whom?"}`, id: "2"})
		k.publish(sent{body: `{"user":"alice","texts":1}`, id: "3"})
		k.publish(sent{body: `{"user":"` + strings.Repeat("x", 257) + `","text":"hi"}`, id: "4"})
		k.publish(sent{body: `{"user":["alice","bob","carol"],"text":"hi"}`, id: "5", headers: map[string]string{"kept": "yes"}})
		wants(t, alice, "hi")
		b.counts("put_aside_total", "reason=malformed", 2)
		b.counts("put_aside_total", "reason=no_user", 2)
		b.counts("put_aside_total", "reason=offline", 2)
		b.counts("messages_total", "outcome=parked", 4)
		b.counts("messages_total", "outcome=delivered", 1)
		found := make(map[string]int)
		for range 4 {
			s := wantsAside(t, k, placeParked)
			found[s.headers[reasonHeader]]++
			if s.headers[errorHeader] == "" {
				t.Errorf("%v does not say what is wrong", s)
			}
		}
		if found["malformed"] != 2 || found["no_user"] != 2 {
			t.Errorf("parked: %v", found)
		}
		for range 2 {
			s := wantsAside(t, k, placeOffline)
			found[s.headers[userHeader]]++
			if !strings.Contains(s.body, `"alice","bob"`) || s.headers["kept"] != "yes" || s.headers[reasonHeader] != "offline" {
				t.Errorf("%v is not the message that came", s)
			}
		}
		if found["bob"] != 1 || found["carol"] != 1 {
			t.Errorf("offline: %v", found)
		}
		wantsNoneLeft(t, k)
	})

	t.Run("several bridges share", func(t *testing.T) {
		k, m := open(t, "share"), newMember(t)
		alice := m.Connect("alice")
		first, second := runBridge(t, m, k.config()), runBridge(t, m, k.config())
		const messages = 300
		for i := range messages {
			k.publish(sent{body: fmt.Sprintf(`{"user":"alice","n":%d}`, i), id: fmt.Sprint(i)})
		}
		seen := make(map[string]bool)
		for range messages {
			seen[string(alice.Receive().Data)] = true
		}
		if len(seen) != messages {
			t.Errorf("%d messages came twice", messages-len(seen))
		}
		wantsNoneLeft(t, k)
		a, b := first.metric("messages_total", "outcome=delivered"), second.metric("messages_total", "outcome=delivered")
		if a+b != messages || a == 0 || b == 0 {
			t.Errorf("they have delivered %v and %v", a, b)
		}
	})

	// While all its member is away, a message waits, and none is parked. Who is stopped meanwhile leaves it to the broker.
	t.Run("stopped in an outage", func(t *testing.T) {
		k := open(t, "outage")
		m := newMember(t)
		cfg := k.config()
		cfg.Tries, cfg.Timeout = 1, 200*time.Millisecond
		dead := m.RPCAddr().String()
		cfg.Sender.Via = "http://" + dead[:strings.LastIndexByte(dead, ':')] + ":1" // nobody listens there
		b := runBridge(t, nil, cfg)
		k.publish(sent{body: `{"user":"alice"}`, id: "1"})
		testkit.Eventually(t, 20*time.Second, func() bool { return b.metric("retries_total", "") >= 2 }, "it to be tried again")
		b.end()
		if returned := b.metric("messages_total", "outcome=returned"); returned != 1 {
			t.Errorf("%v are returned to the broker, want 1", returned)
		}
		alice := m.Connect("alice")
		cfg.Sender.Via = ""
		runBridge(t, m, cfg)
		wants(t, alice, `{"user":"alice"}`)
		wantsNoneLeft(t, k)
	})

	t.Run("the broker is restarted", func(t *testing.T) {
		k, m := open(t, "restart"), newMember(t)
		alice := m.Connect("alice")
		cfg := k.config()
		cfg.Admin = "127.0.0.1:0"
		b := runBridge(t, m, cfg)
		if status, text := b.ask("/readyz"); status != 200 {
			t.Errorf("/readyz: %d %s", status, text)
		}
		broker.Stop()
		testkit.Eventually(t, 40*time.Second, func() bool { status, _ := b.ask("/readyz"); return status == 503 }, "it not to be ready")
		broker.Start()
		testkit.Eventually(t, 60*time.Second, func() bool { status, _ := b.ask("/readyz"); return status == 200 }, "it to be ready again")
		k.publish(sent{body: `{"user":"alice"}`, id: "1"})
		wants(t, alice, `{"user":"alice"}`)
		wantsNoneLeft(t, k)
		if b.metric("connection_losses_total", "") == 0 || b.metric("connected", "") != 1 {
			t.Error("the metrics tell nothing of it")
		}
	})
}
