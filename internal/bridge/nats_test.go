package bridge

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/selvedge/selvedge/internal/testkit"
)

// natsStream publishes to a JetStream stream.
type natsStream struct {
	t    testing.TB
	url  string
	name string
	js   jetstream.JetStream
}

func openNATS(t testing.TB, url string) *nats.Conn {
	t.Helper()
	conn, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

func newNATSStream(t testing.TB, url, name string) *natsStream {
	t.Helper()
	js, err := jetstream.New(openNATS(t, url))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	testkit.Eventually(t, 20*time.Second, func() error {
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: name, Subjects: []string{name + ".>"}})
		return err
	}, "JetStream to make a stream")
	return &natsStream{t, url, name, js}
}

func (n *natsStream) config() Config { return Config{NATS: n.url, Stream: n.name} }

func (n *natsStream) publish(s sent) {
	n.t.Helper()
	m := nats.NewMsg(n.name + ".chat")
	m.Data = []byte(s.body)
	for name, value := range s.headers {
		m.Header.Set(name, value)
	}
	if _, err := n.js.PublishMsg(n.t.Context(), m, jetstream.WithRetryAttempts(20)); err != nil {
		n.t.Fatal(err)
	}
}

func (n *natsStream) aside(place string) (s sent, err error) {
	stream, err := n.js.Stream(n.t.Context(), n.name+"-"+place)
	if err != nil {
		return s, err
	}
	info, err := stream.Info(n.t.Context())
	if err != nil {
		return s, err
	}
	if info.State.Msgs == 0 {
		return s, fmt.Errorf("none is there")
	}
	m, err := stream.GetMsg(n.t.Context(), info.State.FirstSeq)
	if err != nil {
		return s, err
	}
	s = sent{body: string(m.Data), headers: make(map[string]string)}
	for name := range m.Header {
		s.headers[name] = m.Header.Get(name)
	}
	if s.headers[subjectHeader] != n.name+".chat" {
		n.t.Errorf("%v does not say where it came from", s)
	}
	return s, stream.DeleteMsg(n.t.Context(), m.Sequence)
}

func (n *natsStream) left() (int, error) {
	consumer, err := n.js.Consumer(n.t.Context(), n.name, "selvedge")
	if err != nil {
		return 0, err
	}
	info := consumer.CachedInfo()
	return info.NumAckPending + int(info.NumPending), nil
}

func TestJetStream(t *testing.T) {
	t.Parallel() // it waits for its broker, mostly
	broker := testkit.StartNATS(t)
	testKeeping(t, func(t *testing.T, name string) keeper { return newNATSStream(t, broker.URL, name) }, broker)

	t.Run("the consumer is another one", func(t *testing.T) {
		n := newNATSStream(t, broker.URL, "other")
		_, err := n.js.CreateConsumer(t.Context(), "other", jetstream.ConsumerConfig{Durable: "selvedge", AckPolicy: jetstream.AckAllPolicy})
		if err != nil {
			t.Fatal(err)
		}
		wantMisuse(t, n.config(), "choose another --group")
	})

	t.Run("one subject of many", func(t *testing.T) {
		n := newNATSStream(t, broker.URL, "filter")
		m := newMember(t)
		alice := m.Connect("alice")
		cfg := n.config()
		cfg.Subject = "filter.chat"
		runBridge(t, m, cfg)
		if _, err := n.js.Publish(t.Context(), "filter.other", []byte(`{"user":"alice","n":1}`)); err != nil {
			t.Fatal(err)
		}
		n.publish(sent{body: `{"user":"alice","n":2}`})
		wants(t, alice, `{"user":"alice","n":2}`)
		cfg.Subject = "filter.other"
		wantMisuse(t, cfg, `for subject "filter.chat"`)
	})
}

func TestSubject(t *testing.T) {
	broker := testkit.StartNATS(t)
	conn := openNATS(t, broker.URL)
	m := newMember(t)
	alice := m.Connect("alice")
	publish := func(text string) {
		t.Helper()
		if err := conn.PublishMsg(&nats.Msg{Subject: "chat.hi", Header: nats.Header{"To": {"alice", "bob"}}, Data: []byte(text)}); err != nil {
			t.Fatal(err)
		}
		if err := conn.FlushTimeout(10 * time.Second); err != nil {
			t.Fatal(err)
		}
	}
	cfg := Config{NATS: broker.URL, Subject: "chat.>", User: "header:To"}
	first, second := runBridge(t, m, cfg), runBridge(t, m, cfg)
	const messages = 100
	for i := range messages {
		publish(fmt.Sprint(i))
	}
	seen := make(map[string]bool)
	for range messages {
		seen[string(alice.Receive().Data)] = true
	}
	a, b := first.metric("messages_total", "outcome=delivered"), second.metric("messages_total", "outcome=delivered")
	if len(seen) != messages || a == 0 || b == 0 {
		t.Errorf("%d of %d came; they have delivered %v and %v", len(seen), messages, a, b)
	}
	second.end()

	broker.Stop()
	first.counts("connected", "", 0)
	broker.Start()
	first.counts("connected", "", 1)
	testkit.Eventually(t, 20*time.Second, conn.IsConnected, "the publisher to be back")
	publish("after")
	wants(t, alice, "after")

	for i := range messages {
		publish(fmt.Sprint("last ", i))
	}
	first.end()
	for i := range messages {
		wants(t, alice, fmt.Sprint("last ", i))
	}
}
