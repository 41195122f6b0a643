package bridge

import (
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/selvedge/selvedge/internal/testkit"
)

// redisStream adds to a stream, each message as a field called body, its headers as others.
type redisStream struct {
	t      testing.TB
	url    string
	name   string
	client *redis.Client
}

func openRedis(t testing.TB, url string) *redis.Client {
	t.Helper()
	options, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	t.Cleanup(func() { client.Close() })
	return client
}

func (r *redisStream) config() Config { return Config{Redis: r.url, Stream: r.name, Field: "body"} }

func (r *redisStream) publish(s sent) {
	r.t.Helper()
	values := map[string]any{"body": s.body}
	for name, value := range s.headers {
		values[name] = value
	}
	if err := r.client.XAdd(r.t.Context(), &redis.XAddArgs{Stream: r.name, Values: values}).Err(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *redisStream) aside(place string) (s sent, err error) {
	entries, err := r.client.XRangeN(r.t.Context(), r.name+"."+place, "-", "+", 1).Result()
	if err != nil || len(entries) == 0 {
		return s, fmt.Errorf("none is there: %w", err)
	}
	s.headers = make(map[string]string)
	for name, value := range entries[0].Values {
		s.headers[name] = value.(string)
	}
	s.body = s.headers["body"]
	return s, r.client.XDel(r.t.Context(), r.name+"."+place, entries[0].ID).Err()
}

func (r *redisStream) left() (int, error) {
	pending, err := r.client.XPending(r.t.Context(), r.name, "selvedge").Result()
	if err != nil {
		return 0, err
	}
	return int(pending.Count), nil
}

func TestRedisStream(t *testing.T) {
	t.Parallel() // it waits for its broker, mostly
	broker := testkit.StartRedis(t)
	testKeeping(t, func(t *testing.T, name string) keeper {
		return &redisStream{t, broker.URL, name, openRedis(t, broker.URL)}
	}, broker)

	t.Run("all fields are the body", func(t *testing.T) {
		m := newMember(t)
		alice := m.Connect("alice")
		runBridge(t, m, Config{Redis: broker.URL, Stream: "fields", Payload: "json:text"})
		r := &redisStream{t, broker.URL, "fields", openRedis(t, broker.URL)}
		if err := r.client.XAdd(t.Context(), &redis.XAddArgs{Stream: "fields", Values: []string{"user", "alice", "text", "hi"}}).Err(); err != nil {
			t.Fatal(err)
		}
		wants(t, alice, "hi")
	})

	// A consumer that is dead, on another host, leaves its entries to the others.
	t.Run("the dead are claimed from", func(t *testing.T) {
		m := newMember(t)
		alice := m.Connect("alice")
		r := &redisStream{t, broker.URL, "dead", openRedis(t, broker.URL)}
		runBridge(t, m, r.config()).end() // makes the group
		for i := range 3 {
			r.publish(sent{body: fmt.Sprintf(`{"user":"alice","n":%d}`, i)})
		}
		read := r.client.XReadGroup(t.Context(), &redis.XReadGroupArgs{Group: "selvedge", Consumer: "dead", Streams: []string{"dead", ">"}})
		if err := read.Err(); err != nil {
			t.Fatal(err)
		}
		entries := read.Val()[0].Messages
		if err := r.client.XDel(t.Context(), "dead", entries[1].ID).Err(); err != nil { // as trimming does
			t.Fatal(err)
		}
		b := runBridge(t, m, r.config())
		// Not to wait for the time that they must be idle for:
		aged := r.client.Do(t.Context(), "XCLAIM", "dead", "selvedge", "dead", "0", entries[0].ID, entries[2].ID, "IDLE", streamClaim.Milliseconds())
		if err := aged.Err(); err != nil {
			t.Fatal(err)
		}
		wants(t, alice, `{"user":"alice","n":0}`, `{"user":"alice","n":2}`)
		b.counts("redeliveries_total", "", 2)
	})

	t.Run("the group is gone", func(t *testing.T) {
		m := newMember(t)
		alice := m.Connect("alice")
		r := &redisStream{t, broker.URL, "gone", openRedis(t, broker.URL)}
		b := runBridge(t, m, r.config())
		r.publish(sent{body: `{"user":"alice","n":1}`})
		wants(t, alice, `{"user":"alice","n":1}`)
		b.counts("messages_total", "outcome=delivered", 1)
		if err := r.client.XGroupDestroy(t.Context(), "gone", "selvedge").Err(); err != nil {
			t.Fatal(err)
		}
		r.publish(sent{body: `{"user":"alice","n":2}`})
		wants(t, alice, `{"user":"alice","n":2}`) // and not the first again
	})
}

func TestRedisChannel(t *testing.T) {
	broker := testkit.StartRedis(t)
	client := openRedis(t, broker.URL)
	m := newMember(t)
	alice := m.Connect("alice")
	publish := func(text string) (listeners int64) {
		t.Helper()
		n, err := client.Publish(t.Context(), "chat", text).Result()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	b := runBridge(t, m, Config{Redis: broker.URL, Channel: "chat"})
	publish(`{"user":"alice","n":1}`)
	wants(t, alice, `{"user":"alice","n":1}`)
	publish(`not JSON`)
	b.counts("messages_total", "outcome=dropped", 1)
	b.counts("put_aside_total", "reason=malformed", 1)

	broker.Stop()
	b.counts("connected", "", 0)
	broker.Start()
	b.counts("connected", "", 1)
	publish(`{"user":"alice","n":2}`)
	wants(t, alice, `{"user":"alice","n":2}`)

	for i := range 200 { // what Redis has sent by the time that it hears of the end arrives
		publish(fmt.Sprintf(`{"user":"alice","last":%d}`, i))
	}
	b.end()
	for i := range 200 {
		wants(t, alice, fmt.Sprintf(`{"user":"alice","last":%d}`, i))
	}
	if n := publish(`{"user":"alice","n":3}`); n != 0 {
		t.Errorf("%d listen still", n)
	}
}
