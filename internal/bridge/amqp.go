package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/selvedge/selvedge/internal/config"
)

// queue is a RabbitMQ queue as a source. Bridges that read one queue share its messages.
type queue struct {
	url, name, exchange string
	prefetch            int
	unnamed             sync.Once // says once that messages have no id
}

func newQueue(c Config) (*queue, error) {
	if _, err := amqp.ParseURI(c.AMQP); err != nil { // its text is not shown: a password may be in it
		return nil, config.Wrongf("bridge.amqp", "no URL of a RabbitMQ; want amqp://USER:PASSWORD@HOST:PORT/VHOST")
	}
	return &queue{url: c.AMQP, name: c.Queue, exchange: c.Exchange, prefetch: c.InFlight}, nil
}

func (q *queue) kind() string { return "amqp" }

const (
	amqpHeartbeat = 10 * time.Second
	amqpConnect   = 10 * time.Second // until the handshake is over
	amqpGoodbye   = 2 * time.Second
)

func (q *queue) run(ctx context.Context, b *Bridge) error {
	conn, err := q.dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseDeadline(time.Now().Add(amqpGoodbye)) }()
	if err := q.declare(conn); err != nil {
		return err
	}
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	lost := ch.NotifyClose(make(chan *amqp.Error, 1))
	if err := ch.Qos(q.prefetch, 0, false); err != nil {
		return err
	}
	deliveries, err := ch.Consume(q.name, consumerTag, false, false, false, false, nil)
	if err != nil {
		return err
	}
	acks := newAcker(ch)
	defer func() { _ = acks.close() }()
	shelf := newShelf(conn, q.name)
	b.reading(ctx)
	for {
		select {
		case d, open := <-deliveries:
			if !open {
				return q.reason(lost)
			}
			if !b.take(ctx, q.message(b, d, acks, shelf)) {
				continue // it is left to the broker
			}
		case <-ctx.Done():
			if err := ch.Cancel(consumerTag, false); err != nil {
				return err
			}
			for range deliveries { // what is here already is left to the broker, too
			}
			b.idle()
			return acks.close()
		}
	}
}

const consumerTag = "selvedge"

// dial connects, for as long as ctx lasts.
func (q *queue) dial(ctx context.Context) (*amqp.Connection, error) {
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName("selvedge bridge")
	return amqp.DialConfig(q.url, amqp.Config{
		Heartbeat:  amqpHeartbeat,
		Properties: properties,
		Dial: func(network, addr string) (net.Conn, error) {
			dialer := net.Dialer{Timeout: amqpConnect}
			conn, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return conn, conn.SetDeadline(time.Now().Add(amqpConnect)) // the library takes it away after the handshake
		},
	})
}

// reason is why deliveries have ended.
func (q *queue) reason(lost <-chan *amqp.Error) error {
	select {
	case err := <-lost: // comes before the deliveries' end
		if err != nil {
			return err
		}
	default:
	}
	return fmt.Errorf("the broker has cancelled this consumer: queue %s is gone, or its node", q.name)
}

// declare makes what is not there: the queue and its places for letters, the exchange, the binding. What is there is taken as it is: a
// queue may be a quorum queue, an exchange transient.
func (q *queue) declare(conn *amqp.Connection) error {
	for _, name := range []string{q.name, q.name + "." + placeParked, q.name + "." + placeOffline} {
		err := onChannel(conn, func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
			return err
		})
		if isAMQP(err, amqp.NotFound) {
			err = onChannel(conn, func(ch *amqp.Channel) error {
				_, err := ch.QueueDeclare(name, true, false, false, false, nil)
				return err
			})
		}
		if err != nil {
			return fmt.Errorf("queue %s: %w", name, err)
		}
	}
	if q.exchange == "" {
		return nil
	}
	err := onChannel(conn, func(ch *amqp.Channel) error {
		return ch.ExchangeDeclare(q.exchange, amqp.ExchangeFanout, true, false, false, false, nil)
	})
	if isAMQP(err, amqp.PreconditionFailed) { // it is there, and differs
		if strings.Contains(err.Error(), "'type'") {
			return fmt.Errorf("%w: exchange %s is no fanout exchange: bind queue %s to it yourself, with the keys that you want, and leave --exchange out (%w)",
				errMisuse, q.exchange, q.name, err)
		}
		err = nil // a transient one, say
	}
	if err != nil {
		return fmt.Errorf("exchange %s: %w", q.exchange, err)
	}
	return onChannel(conn, func(ch *amqp.Channel) error { return ch.QueueBind(q.name, "", q.exchange, false, nil) })
}

// onChannel has f use a channel of its own: the broker closes it where f fails.
func onChannel(conn *amqp.Connection, f func(*amqp.Channel) error) error {
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	defer func() { _ = ch.Close() }()
	return f(ch)
}

func isAMQP(err error, code int) bool {
	var e *amqp.Error
	return errors.As(err, &e) && e.Code == code
}

func (q *queue) message(b *Bridge, d amqp.Delivery, acks *acker, shelf *shelf) *message {
	if d.Redelivered {
		b.metrics.redelivers.Inc()
	}
	if d.MessageId == "" && len(b.id) == 0 {
		q.unnamed.Do(func() {
			b.log.Warn("messages come without a message_id: what is delivered again, after a broken connection, sessions get again; " +
				"have publishers set one, or name where the id stands with --id")
		})
	}
	return &message{
		body:   d.Body,
		header: func(name string) []string { return tableValues(d.Headers[name]) },
		id:     givenID(d.MessageId),
		end: func(settled bool) {
			if settled {
				acks.settle(d.DeliveryTag)
			}
		},
		keep: func(ctx context.Context, l letter) error { return shelf.keep(ctx, d, l) },
	}
}

// tableValues are the values of an AMQP header, which may be an array.
func tableValues(v any) []string {
	switch v := v.(type) {
	case nil:
		return nil
	case string:
		return []string{v}
	case []byte:
		return []string{string(v)}
	case int64:
		return []string{strconv.FormatInt(v, 10)}
	case []any:
		var all []string
		for _, one := range v {
			all = append(all, tableValues(one)...)
		}
		return all
	default:
		return []string{fmt.Sprint(v)}
	}
}
