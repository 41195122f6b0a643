package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/rabbitmq/amqp091-go"
	"github.com/redis/go-redis/v9"

	"github.com/selvedge/selvedge/backend/sender"
)

// publisher is one way for a message to the process that holds the user's session. push returns when the message is acknowledged, by
// whoever acknowledges on this way. It is called by many goroutines at once.
type publisher interface {
	push(ctx context.Context, user string, data []byte) error
	close()
}

// toOwner is our way: the owner itself says that the user's session has taken the message.
type toOwner struct{ *sender.Sender }

func (p toOwner) push(ctx context.Context, user string, data []byte) error {
	result, err := p.Push(ctx, user, sender.Message{Data: data, Binary: true})
	if err == nil && result.Sessions != 1 {
		err = fmt.Errorf("taken by %d sessions instead of 1", result.Sessions)
	}
	return err
}

func (p toOwner) close() { p.Close() }

// toChannel publishes to a Redis channel. Redis acknowledges with the number of subscribers to whom it will send the message.
type toChannel struct {
	client      *redis.Client
	commands    redis.Cmdable // the client's, one round trip each, or those that share round trips
	channel     string
	subscribers int64
}

func newToChannel(b *brokers, channel string, subscribers int, pipelined bool) (p *toChannel, err error) {
	p = &toChannel{channel: channel, subscribers: int64(subscribers)}
	// As many connections as there are pushes under way, so that none waits for one.
	p.client = redis.NewClient(&redis.Options{Addr: strings.TrimPrefix(b.redisURL, "redis://"), PoolSize: pacedWidth, MaxRetries: -1})
	p.commands = p.client
	if pipelined {
		p.commands, err = p.client.AutoPipeline()
	}
	return p, err
}

func (p *toChannel) push(ctx context.Context, user string, data []byte) error {
	n, err := p.commands.Publish(ctx, p.channel, sealed(user, data)).Result()
	if err == nil && n != p.subscribers {
		err = fmt.Errorf("published to %d subscribers instead of %d", n, p.subscribers)
	}
	return err
}

func (p *toChannel) close() { _ = p.client.Close() }

// sealed is a message with its user in front: a channel has no room for him elsewhere. This costs less than the JSON that people write.
func sealed(user string, data []byte) []byte {
	b := make([]byte, 0, 1+len(user)+len(data))
	b = append(b, byte(len(user)))
	b = append(b, user...)
	return append(b, data...)
}

func unsealed(b []byte) (user string, data []byte, err error) {
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return "", nil, fmt.Errorf("a message of %d bytes without a user", len(b))
	}
	return string(b[1 : 1+b[0]]), b[1+b[0]:], nil
}

// toExchange publishes to a fanout exchange. RabbitMQ acknowledges, by a publisher confirm, that the message stands in all queues.
type toExchange struct {
	conn     *amqp091.Connection
	channel  *amqp091.Channel
	exchange string
	prefix   string // of message ids
	last     atomic.Uint64
}

// headerUser names the header of a message that has the user's id.
const headerUser = "user"

func newToExchange(b *brokers, exchange string) (p *toExchange, err error) {
	p = &toExchange{exchange: exchange, prefix: rand.Text()[:10] + "-"}
	if p.conn, err = amqp091.Dial(b.amqpURL); err != nil {
		return nil, err
	}
	if p.channel, err = p.conn.Channel(); err == nil {
		err = p.channel.Confirm(false)
	}
	if err != nil {
		p.close()
	}
	return p, err
}

func (p *toExchange) push(ctx context.Context, user string, data []byte) error {
	confirm, err := p.channel.PublishWithDeferredConfirm(p.exchange, "", false, false,
		amqp091.Publishing{Headers: amqp091.Table{headerUser: user}, MessageId: p.prefix + strconv.FormatUint(p.last.Add(1), 36), Body: data})
	if err != nil {
		return err
	}
	confirmed, err := confirm.WaitContext(ctx)
	if err == nil && !confirmed {
		err = errors.New("RabbitMQ did not take it")
	}
	return err
}

func (p *toExchange) close() { _ = p.conn.Close() }
