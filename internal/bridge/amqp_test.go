package bridge

import (
	"context"
	"fmt"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/selvedge/selvedge/internal/testkit"
)

// rabbit publishes to an exchange, and looks into queues.
type rabbit struct {
	t        testing.TB
	broker   *testkit.Broker
	exchange string
	queue    string
	conn     *amqp.Connection // nil: to be opened
	ch       *amqp.Channel
}

func (r *rabbit) config() Config {
	return Config{AMQP: r.broker.URL, Queue: r.queue, Exchange: r.exchange}
}

func (r *rabbit) channel() *amqp.Channel {
	r.t.Helper()
	if r.conn == nil || r.conn.IsClosed() {
		var err error
		if r.conn, err = amqp.Dial(r.broker.URL); err == nil {
			r.ch, err = r.conn.Channel()
		}
		if err == nil {
			err = r.ch.Confirm(false)
		}
		if err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() { r.conn.Close() })
	}
	return r.ch
}

func (r *rabbit) publish(s sent) {
	r.t.Helper()
	p := amqp.Publishing{Body: []byte(s.body), MessageId: s.id, DeliveryMode: amqp.Persistent, Headers: amqp.Table{}}
	for name, value := range s.headers {
		p.Headers[name] = value
	}
	confirmed, err := r.channel().PublishWithDeferredConfirm(r.exchange, "", true, false, p)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	if ok, err := confirmed.WaitContext(ctx); !ok || err != nil {
		r.t.Fatal(ok, err)
	}
}

func (r *rabbit) aside(place string) (s sent, err error) {
	d, ok, err := r.channel().Get(r.queue+"."+place, true)
	if err != nil || !ok {
		return s, fmt.Errorf("none is there: %w", err)
	}
	s = sent{body: string(d.Body), id: d.MessageId, headers: make(map[string]string)}
	for name, value := range d.Headers {
		s.headers[name] = fmt.Sprint(value)
	}
	return s, nil
}

func (r *rabbit) left() (int, error) {
	q, err := r.channel().QueueDeclarePassive(r.queue, true, false, false, false, nil)
	return q.Messages, err
}

func TestQueue(t *testing.T) {
	t.Parallel() // it waits for its broker, mostly
	broker := testkit.StartRabbitMQ(t)
	testKeeping(t, func(t *testing.T, name string) keeper {
		return &rabbit{t: t, broker: broker, exchange: name + "-fan", queue: name}
	}, broker)
	t.Run("a publisher's repeat", func(t *testing.T) {
		r := &rabbit{t: t, broker: broker, exchange: "repeat-fan", queue: "repeat"}
		m := newMember(t)
		alice := m.Connect("alice")
		b := runBridge(t, m, r.config())
		for _, id := range []string{"1", "1", "", "", "2"} {
			r.publish(sent{body: `{"user":"alice"}`, id: id})
		}
		r.publish(sent{body: `{"user":"alice","last":true}`, id: "3"})
		// Twice the one without an id: nothing tells them from two messages.
		wants(t, alice, `{"user":"alice"}`, `{"user":"alice"}`, `{"user":"alice"}`, `{"user":"alice"}`, `{"user":"alice","last":true}`)
		b.counts("unnamed_total", "", 2)
		r.publish(sent{body: `{"user":"alice","other":true}`, id: "3"})
		b.counts("put_aside_total", "reason=reused", 1)
	})
	t.Run("what is there is taken as it is", func(t *testing.T) {
		r := &rabbit{t: t, broker: broker, exchange: "transient", queue: "quorum"}
		ch := r.channel()
		if _, err := ch.QueueDeclare("quorum", true, false, false, false, amqp.Table{"x-queue-type": "quorum"}); err != nil {
			t.Fatal(err)
		}
		if err := ch.ExchangeDeclare("transient", "fanout", false, false, false, false, nil); err != nil {
			t.Fatal(err)
		}
		m := newMember(t)
		alice := m.Connect("alice")
		runBridge(t, m, r.config())
		r.publish(sent{body: `{"user":"alice"}`, id: "1"})
		wants(t, alice, `{"user":"alice"}`)
	})
	t.Run("an exchange of another type", func(t *testing.T) {
		r := &rabbit{t: t, broker: broker, exchange: "topics", queue: "chat"}
		if err := r.channel().ExchangeDeclare("topics", "topic", true, false, false, false, nil); err != nil {
			t.Fatal(err)
		}
		wantMisuse(t, r.config(), "bind queue chat to it yourself")
	})
	t.Run("an array in a header", func(t *testing.T) {
		r := &rabbit{t: t, broker: broker, exchange: "array-fan", queue: "array"}
		m := newMember(t)
		alice, bob := m.Connect("alice"), m.Connect("17")
		cfg := r.config()
		cfg.User = "header:to"
		runBridge(t, m, cfg)
		err := r.channel().PublishWithContext(t.Context(), r.exchange, "", true, false, amqp.Publishing{
			Body: []byte("hi"), Headers: amqp.Table{"to": []any{"alice", int64(17)}},
		})
		if err != nil {
			t.Fatal(err)
		}
		wants(t, alice, "hi")
		wants(t, bob, "hi")
	})
}
