package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"github.com/redis/go-redis/v9"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/internal/discovery"
)

const fanOutUp = "fan-out backend is listening"

// serveFanOut is a server as the articles on fan-out have it, until the process is told to stop: it holds the sessions that a balancer gave
// it, gets every message from a Redis channel and a RabbitMQ exchange, and looks through its own sessions for the user. The sessions are
// package backend's; its ring has this one member, and nobody pushes to it.
func serveFanOut(redisURL, amqpURL, name string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b, err := backend.New(backend.Config{
		ID: "fan-out", Listen: "127.0.0.1:0", RPC: "127.0.0.1:0", Membership: backend.Membership{Memory: discovery.NewMemory()}, PingEvery: pushPingEvery,
	})
	if err != nil {
		return err
	}
	ended := make(chan error, 3)
	go func() { ended <- b.Run(ctx) }()
	select {
	case <-b.Ready():
	case err := <-ended:
		return err
	}
	deliver := func(user string, data []byte) {
		for _, s := range b.SessionsOf(user) {
			_ = s.Send(backend.Message{Data: data, Binary: true}) // an error: it has ended, as the clients will say
		}
	}
	if err := subscribe(ctx, redisURL, name, deliver, ended); err != nil {
		return fmt.Errorf("Redis: %w", err)
	}
	if err := consume(amqpURL, name, deliver, ended); err != nil {
		return fmt.Errorf("RabbitMQ: %w", err)
	}
	fmt.Fprintf(os.Stderr, `{"msg":%q,"addr":%q}`+"\n", fanOutUp, b.Addr())
	return <-ended
}

// subscribe hands over what comes on a channel, from when it returns until ctx ends.
func subscribe(ctx context.Context, url, channel string, deliver func(user string, data []byte), ended chan<- error) error {
	options, err := redis.ParseURL(url)
	if err != nil {
		return err
	}
	subscription := redis.NewClient(options).Subscribe(ctx, channel)
	if _, err := subscription.Receive(ctx); err != nil { // the server's word that it is subscribed
		return err
	}
	go func() {
		for {
			m, err := subscription.ReceiveMessage(ctx)
			if err != nil {
				ended <- fmt.Errorf("Redis: %w", err)
				return
			}
			user, data, err := unsealed([]byte(m.Payload))
			if err != nil {
				ended <- err
				return
			}
			deliver(user, data)
		}
	}()
	return nil
}

// consume hands over what comes from a fanout exchange by a queue of this server's own, which goes when the server does, and does not ask for
// acknowledgements: of a server that is gone the sessions are, too.
func consume(url, exchange string, deliver func(user string, data []byte), ended chan<- error) error {
	conn, err := amqp091.Dial(url)
	if err != nil {
		return err
	}
	channel, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := channel.ExchangeDeclare(exchange, "fanout", false, false, false, false, nil); err != nil {
		return err
	}
	queue, err := channel.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		return err
	}
	if err := channel.QueueBind(queue.Name, "", exchange, false, nil); err != nil {
		return err
	}
	messages, err := channel.Consume(queue.Name, "", true, true, false, false, nil)
	if err != nil {
		return err
	}
	go func() {
		for m := range messages {
			user, _ := m.Headers[headerUser].(string)
			deliver(user, m.Body)
		}
		ended <- fmt.Errorf("RabbitMQ has ended the subscription")
	}()
	return nil
}

// flock is some fan-out servers that share the online users.
type flock struct {
	name    string // of channel and exchange
	servers []*process
	addrs   []string
}

func startFlock(ctx context.Context, env Env, b *brokers, n int) (f *flock, err error) {
	f = &flock{name: fmt.Sprintf("pushes-%d", n)}
	defer func() {
		if err != nil {
			f.kill()
		}
	}()
	for i := range n {
		p, err := startProcess(fmt.Sprintf("fan-out server %d", i+1), exec.Command(env.Self, roleFanOut, b.redisURL, b.amqpURL, f.name), fanOutUp)
		if err != nil {
			return f, err
		}
		f.servers = append(f.servers, p)
	}
	for _, p := range f.servers {
		entry, err := p.up(ctx)
		if err != nil {
			return f, err
		}
		f.addrs = append(f.addrs, entry.text("addr"))
	}
	return f, nil
}

func (f *flock) pids() []int {
	var pids []int
	for _, p := range f.servers {
		pids = append(pids, p.pid())
	}
	return pids
}

func (f *flock) kill() {
	for _, p := range f.servers {
		p.kill()
	}
}

// pushPingEvery is how often the sessions of this benchmark are pinged, in all backends alike: at the default of 30 s the pings of 16,000
// sessions would be a fourth of what is measured at 2,000 pushes/s.
const pushPingEvery = time.Hour
