package bridge

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/selvedge/selvedge/internal/config"
)

// quietRedis turns off what the client says on standard error; its errors come back from its calls, too.
var quietRedis = sync.OnceFunc(logging.Disable)

func newRedis(c Config) (*redis.Client, error) {
	quietRedis()
	options, err := redis.ParseURL(c.Redis)
	if err != nil { // its text is not shown: a password may be in it
		return nil, config.Wrongf("bridge.redis", "no URL of a Redis; want redis://USER:PASSWORD@HOST:PORT/DB")
	}
	options.ClientName = "selvedge-bridge"
	options.DisableIdentity = true // for servers before 7.2
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	options.ContextTimeoutEnabled = true
	return redis.NewClient(options), nil
}

// channel is a Redis channel as a source. Redis sends a message to whoever listens at that moment, and forgets it.
type channel struct {
	client *redis.Client
	name   string
}

func newChannel(c Config) (*channel, error) {
	client, err := newRedis(c)
	return &channel{client, c.Channel}, err
}

func (c *channel) Close() error { return c.client.Close() }

func (c *channel) kind() string { return "redis_channel" }

const (
	channelPing    = 10 * time.Second
	channelSilence = 3 * channelPing // then the connection is dead
	channelGoodbye = 2 * time.Second
)

func (c *channel) run(ctx context.Context, b *Bridge) error {
	open := context.WithoutCancel(ctx) // what has come is taken after the end of ctx, too
	sub := c.client.Subscribe(open)
	defer func() { _ = sub.Close() }()
	started, cancel := context.WithTimeout(ctx, channelGoodbye)
	defer cancel()
	if err := sub.Subscribe(started, c.name); err != nil {
		return err
	}
	// Once ctx has ended, Redis is asked to send nothing more. It answers behind what it has sent.
	ended := make(chan struct{})
	var asking sync.WaitGroup
	defer asking.Wait()
	defer close(ended)
	asking.Go(func() {
		ping := time.NewTicker(channelPing)
		defer ping.Stop()
		for {
			select {
			case <-ping.C:
				_ = sub.Ping(open) // the silence after a failure is noticed
			case <-ctx.Done():
				_ = sub.Unsubscribe(open, c.name)
				return
			case <-ended:
				return
			}
		}
	})
	for {
		wait := channelSilence
		if ctx.Err() != nil {
			wait = channelGoodbye
		}
		got, err := sub.ReceiveTimeout(open, wait)
		if err != nil {
			return err
		}
		switch got := got.(type) {
		case *redis.Subscription:
			if got.Kind == "unsubscribe" {
				b.idle()
				return nil
			}
			b.reading(ctx)
		case *redis.Message:
			b.take(open, &message{body: []byte(got.Payload), header: func(string) []string { return nil }, end: func(bool) {}})
		}
	}
}
