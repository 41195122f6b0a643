package systemtest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/redis/go-redis/v9"

	"github.com/selvedge/selvedge/internal/testkit"
)

const brokerTimeout = 20 * time.Second

// rabbit is an exchange that fans out, as it stands in a service that is coming over, and the bridges' queue.
type rabbit struct {
	url string
	mu  sync.Mutex // publishing, or looking
	ch  *amqp.Channel
}

func startRabbit(t *testing.T) broker {
	t.Helper()
	r := &rabbit{url: testkit.StartRabbitMQ(t).URL}
	conn, err := amqp.Dial(r.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if r.ch, err = conn.Channel(); err == nil {
		err = r.ch.Confirm(false)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rabbit) flags() []string {
	return []string{"--amqp", r.url, "--queue", "push", "--exchange", "chat"}
}

func (r *rabbit) publish(t *testing.T, first int, bodies []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), brokerTimeout)
	defer cancel()
	var confirmed []*amqp.DeferredConfirmation
	for i, body := range bodies {
		c, err := r.ch.PublishWithDeferredConfirmWithContext(ctx, "chat", "", true, false, amqp.Publishing{
			Body: []byte(body), MessageId: fmt.Sprintf("id-%d", first+i), DeliveryMode: amqp.Persistent,
		})
		if err != nil {
			t.Errorf("publish: %v", err)
			return
		}
		confirmed = append(confirmed, c)
	}
	for _, c := range confirmed {
		if took, err := c.WaitContext(ctx); err != nil || !took {
			t.Errorf("publish: confirmed %v, %v", took, err)
			return
		}
	}
}

func (r *rabbit) letters(t *testing.T, place string) map[string][]string {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	letters := make(map[string][]string)
	for {
		d, ok, err := r.ch.Get("push."+place, true)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return letters
		}
		user, _ := d.Headers["selvedge-user"].(string)
		letters[user] = append(letters[user], string(d.Body))
	}
}

// left tells of those that wait; what was delivered and is not acknowledged comes back when its consumer goes, as it does in the end.
func (r *rabbit) left(t *testing.T) int {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	q, err := r.ch.QueueDeclarePassive("push", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return q.Messages
}

// redisStream is a stream that the bridges read as a group.
type redisStream struct {
	url    string
	client *redis.Client
}

func startRedisStream(t *testing.T) broker {
	t.Helper()
	url := testkit.StartRedis(t).URL
	options, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	r := &redisStream{url, redis.NewClient(options)}
	t.Cleanup(func() { r.client.Close() })
	return r
}

func (r *redisStream) flags() []string {
	return []string{"--redis", r.url, "--stream", "chat", "--group", "push", "--field", "body"}
}

func (r *redisStream) publish(t *testing.T, _ int, bodies []string) {
	ctx := context.Background()
	_, err := r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, body := range bodies {
			p.XAdd(ctx, &redis.XAddArgs{Stream: "chat", Values: []string{"body", body}})
		}
		return nil
	})
	if err != nil {
		t.Errorf("publish: %v", err)
	}
}

func (r *redisStream) letters(t *testing.T, place string) map[string][]string {
	t.Helper()
	entries, err := r.client.XRange(t.Context(), "chat."+place, "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	letters := make(map[string][]string)
	for _, e := range entries {
		user, _ := e.Values["selvedge-user"].(string)
		letters[user] = append(letters[user], e.Values["body"].(string))
	}
	return letters
}

func (r *redisStream) left(t *testing.T) int {
	t.Helper()
	groups, err := r.client.XInfoGroups(t.Context(), "chat").Result()
	if err != nil || len(groups) != 1 {
		t.Fatal(groups, err)
	}
	return int(groups[0].Pending + groups[0].Lag)
}

// jetStream is a stream that the bridges read by a durable consumer.
type jetStream struct {
	url string
	js  jetstream.JetStream
}

func startJetStream(t *testing.T) broker {
	t.Helper()
	j := &jetStream{url: testkit.StartNATS(t).URL}
	conn, err := nats.Connect(j.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	if j.js, err = jetstream.New(conn); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, brokerTimeout, func() error {
		_, err := j.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "CHAT", Subjects: []string{"chat.>"}})
		return err
	}, "JetStream to make a stream")
	return j
}

func (j *jetStream) flags() []string {
	return []string{"--nats", j.url, "--stream", "CHAT", "--group", "push", "--subject", "chat.>"}
}

func (j *jetStream) publish(t *testing.T, _ int, bodies []string) {
	var acks []jetstream.PubAckFuture
	for _, body := range bodies {
		ack, err := j.js.PublishAsync("chat.room", []byte(body))
		if err != nil {
			t.Errorf("publish: %v", err)
			return
		}
		acks = append(acks, ack)
	}
	for _, ack := range acks {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			t.Errorf("publish: %v", err)
			return
		}
	}
}

func (j *jetStream) letters(t *testing.T, place string) map[string][]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), brokerTimeout)
	defer cancel()
	consumer, err := j.js.CreateConsumer(ctx, "CHAT-"+place, jetstream.ConsumerConfig{AckPolicy: jetstream.AckNonePolicy})
	if err != nil {
		t.Fatal(err)
	}
	letters := make(map[string][]string)
	for left := consumer.CachedInfo().NumPending; left > 0; left-- {
		m, err := consumer.Next()
		if err != nil {
			t.Fatal(err)
		}
		user := m.Headers().Get("selvedge-user")
		letters[user] = append(letters[user], string(m.Data()))
	}
	return letters
}

func (j *jetStream) left(t *testing.T) int {
	t.Helper()
	consumer, err := j.js.Consumer(t.Context(), "CHAT", "push")
	if err != nil {
		t.Fatal(err)
	}
	info := consumer.CachedInfo()
	return info.NumAckPending + int(info.NumPending)
}
