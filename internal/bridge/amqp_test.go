package bridge

import (
	"context"
	"fmt"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/selvedge/selvedge/internal/testkit"
)

// rabbit is a publisher and an observer of queues.
type rabbit struct {
	t    testing.TB
	conn *amqp.Connection
	ch   *amqp.Channel
}

func dialRabbit(t testing.TB, url string) *rabbit {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	return &rabbit{t, conn, ch}
}

func (r *rabbit) publish(exchange, key string, p amqp.Publishing) {
	r.t.Helper()
	p.DeliveryMode = amqp.Persistent
	confirmed, err := r.ch.PublishWithDeferredConfirm(exchange, key, true, false, p)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	if ok, err := confirmed.WaitContext(ctx); !ok || err != nil {
		r.t.Fatal(ok, err)
	}
}

// takes waits for a message in a queue and takes it.
func (r *rabbit) takes(queue string) (d amqp.Delivery) {
	r.t.Helper()
	testkit.Eventually(r.t, 20*time.Second, func() error {
		var ok bool
		var err error
		if d, ok, err = r.ch.Get(queue, true); err == nil && !ok {
			err = fmt.Errorf("queue %s is empty", queue)
		}
		return err
	}, "a message in "+queue)
	return d
}

// empty waits until all messages of a queue are acknowledged.
func (r *rabbit) left(queue string) int {
	r.t.Helper()
	q, err := r.ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return q.Messages
}

func TestQueue(t *testing.T) {
	broker := testkit.StartRabbitMQ(t)
	m := newMember(t)
	pub := dialRabbit(t, broker.URL)
	alice := m.Connect("alice")

	t.Run("delivers and acknowledges", func(t *testing.T) {
		cfg := Config{AMQP: broker.URL, Queue: "chat", Exchange: "fan", User: "json:to", Payload: "json:text"}
		b := runBridge(t, m, cfg)
		pub.publish("fan", "", amqp.Publishing{Body: []byte(`{"to":"alice","text":"hi"}`), MessageId: "1"})
		wants(t, alice, "hi")
		b.counts("messages_total", "outcome=delivered", 1)
		b.end()
		if n := pub.left("chat"); n != 0 {
			t.Errorf("%d messages are left", n)
		}
	})
}
