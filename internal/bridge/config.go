package bridge

import (
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/selvedge/selvedge/backend/sender"
	"github.com/selvedge/selvedge/internal/admin"
	"github.com/selvedge/selvedge/internal/config"
)

// Config is a bridge's configuration. Exactly one of Redis, AMQP and NATS is set. Expressions are explained at [Config.User].
type Config struct {
	// Redis is redis://[USER:PASSWORD@]HOST:PORT[/DB], rediss:// with TLS, or unix:///PATH.
	Redis string
	// AMQP is amqp://[USER:PASSWORD@]HOST[:PORT][/VHOST] of a RabbitMQ, or amqps:// with TLS.
	AMQP string
	// NATS is nats://[USER:PASSWORD@]HOST[:PORT], or tls://; several servers of one cluster by comma.
	NATS string

	// Channel is a Redis channel to subscribe to.
	Channel string
	// Stream is a Redis stream, or a JetStream stream.
	Stream string
	// Group shares a stream or a subject among bridges: a Redis consumer group, a JetStream durable consumer, a NATS queue group. One
	// that does not exist is made, and begins with what is published from then on. Default: "selvedge".
	Group string
	// Field is the field of a Redis stream's entry that holds its body. Default: all of them, as a JSON object.
	Field string
	// Queue is an AMQP queue, shared by all bridges. One that does not exist is declared durable.
	Queue string
	// Exchange is an AMQP exchange that Queue is bound to. One that does not exist is declared, durable and of type fanout.
	Exchange string
	// Subject is a NATS subject, of JetStream one that chooses among those of the stream; wildcards are allowed.
	Subject string

	// User finds the users of a message: json:PATH in its body (a GJSON path to one user or an array of users), header:NAME, or all for every session of the
	// service; several by comma, of which the first that is present wins. Default: "json:user".
	User string
	// Payload finds what the sessions get: body, json:PATH or header:NAME. Default: "body".
	Payload string
	// ID finds a message's id where the broker's is not the one to go by: json:PATH or header:NAME. Default: the broker's, as DESIGN.md says.
	ID string
	// Binary sends binary WebSocket messages. Otherwise they are text, and payloads must be UTF-8.
	Binary bool

	// DeadLetterOffline keeps messages for users who are offline, one for each user, instead of acknowledging them.
	DeadLetterOffline bool
	// Tries is how often a message is tried before it is parked. Tries that found no member of the service do not count. Default: 10.
	Tries int
	// Timeout is the time that one try may take, up to 15 s. Default: 5 s.
	Timeout time.Duration
	// InFlight bounds the messages that were taken from the broker and have no outcome yet. Default: 512.
	InFlight int

	// Sender reaches the service; its Metrics are the bridge's.
	Sender sender.Config
	// Admin is the address of the operator's listener; empty: none.
	Admin string
	// AdminToken is the bearer token of that listener, needed off loopback.
	AdminToken string
	// Metrics gets the bridge's metrics. Default: a registry of its own, shown at /metrics.
	Metrics *prometheus.Registry
	// Logger gets what an operator should know. Payloads, user ids and the brokers' URLs are never logged. Default: nothing is.
	Logger *zap.Logger
}

// DefaultAdmin is where `selvedge bridge` serves health and metrics.
const DefaultAdmin = "127.0.0.1:8082"

const maxTimeout = 15 * time.Second // members cut longer ones

func (c Config) withDefaults() Config {
	def(&c.User, "json:user")
	def(&c.Payload, "body")
	def(&c.Tries, 10)
	def(&c.Timeout, 5*time.Second)
	def(&c.InFlight, 512)
	def(&c.Sender.Service, "default")
	if c.Stream != "" || c.NATS != "" {
		def(&c.Group, "selvedge")
	}
	if c.Metrics == nil {
		c.Metrics = admin.NewRegistry()
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	return c
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// check returns every problem at once, each by the key that the file would have.
func (c Config) check() error {
	var problems []error
	bad := func(key, format string, args ...any) {
		problems = append(problems, config.Wrongf(key, format, args...))
	}
	brokers := 0
	for _, broker := range []struct{ key, urls, schemes, example string }{
		{"bridge.redis", c.Redis, "redis rediss unix", "redis://HOST:PORT"},
		{"bridge.amqp", c.AMQP, "amqp amqps", "amqp://HOST:PORT/VHOST"},
		{"bridge.nats", c.NATS, "nats tls", "nats://HOST:PORT"},
	} {
		if broker.urls == "" {
			continue
		}
		brokers++
		for one := range strings.SplitSeq(broker.urls, ",") {
			if !isURL(one, strings.Fields(broker.schemes)) {
				// The text is not repeated, nor the parser's error, which would: a password may be in it.
				bad(broker.key, "no URL of a broker; want %s, with what is not a letter or a digit in a user's name or password percent-encoded", broker.example)
			}
		}
	}
	if brokers != 1 {
		bad("bridge", "%d brokers are given; want one of redis, amqp and nats", brokers)
	}
	problems = append(problems, c.checkSource())
	for _, e := range []struct{ key, text, kinds string }{
		{"bridge.user", c.User, "json header all"}, {"bridge.payload", c.Payload, "json header body"}, {"bridge.id", c.ID, "json header"},
	} {
		if _, err := parseExpression(e.text, strings.Fields(e.kinds)); err != nil {
			problems = append(problems, config.Under(e.key, err))
		}
	}
	if c.Tries < 1 {
		bad("bridge.tries", "%d; want 1 or more", c.Tries)
	}
	if c.Timeout < 0 || c.Timeout > maxTimeout {
		bad("bridge.timeout", "%v; want a duration above 0, up to %v", c.Timeout, maxTimeout)
	}
	if c.InFlight < 1 || c.InFlight > maxInFlight {
		bad("bridge.in_flight", "%d; want 1 to %d", c.InFlight, maxInFlight)
	}
	if err := admin.CheckExposure(c.Admin, c.AdminToken, "admin.token_file (AdminToken)"); err != nil {
		problems = append(problems, config.Under("admin.addr", err))
	}
	return errors.Join(problems...)
}

const maxInFlight = 65_535 // what AMQP's prefetch count holds

// checkSource checks that what is to be read is named, and nothing of another broker.
func (c Config) checkSource() error {
	var problems []error
	bad := func(key, format string, args ...any) {
		problems = append(problems, config.Wrongf(key, format, args...))
	}
	switch {
	case c.Redis != "" && (c.Channel == "") == (c.Stream == ""):
		bad("bridge.redis", "want either a channel (pub/sub) or a stream to read")
	case c.AMQP != "" && c.Queue == "":
		bad("bridge.queue", "name the queue that all bridges share; it is declared where it does not exist")
	case c.NATS != "" && c.Stream == "" && c.Subject == "":
		bad("bridge.subject", "name the subject to subscribe to, or with stream a JetStream stream")
	}
	for _, of := range []struct {
		key, value string
		belongs    bool
		to         string
	}{
		{"bridge.channel", c.Channel, c.Redis != "", "redis"},
		{"bridge.field", c.Field, c.Redis != "" && c.Stream != "", "redis with stream"},
		{"bridge.stream", c.Stream, c.Redis != "" || c.NATS != "", "redis and nats"},
		{"bridge.group", c.Group, c.Stream != "" || c.NATS != "", "streams and nats"},
		{"bridge.queue", c.Queue, c.AMQP != "", "amqp"},
		{"bridge.exchange", c.Exchange, c.AMQP != "", "amqp"},
		{"bridge.subject", c.Subject, c.NATS != "", "nats"},
	} {
		if of.value != "" && !of.belongs {
			bad(of.key, "this is for %s; leave it out", of.to)
		}
	}
	if c.DeadLetterOffline && c.forgets() {
		bad("bridge.offline", "dead-letter: this broker has no place to keep messages in; use a Redis stream, AMQP or JetStream")
	}
	return errors.Join(problems...)
}

// Source says what the bridge reads: "queue chat", for people.
func (c Config) Source() string {
	switch {
	case c.AMQP != "":
		return "queue " + c.Queue
	case c.Channel != "":
		return "channel " + c.Channel
	case c.Stream != "":
		return "stream " + c.Stream
	default:
		return "subject " + c.Subject
	}
}

// forgets tells whether the broker forgets a message as it sends it: it takes no acknowledgements and keeps nothing.
func (c Config) forgets() bool { return c.Channel != "" || c.NATS != "" && c.Stream == "" }

func isURL(text string, schemes []string) bool {
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil {
		return false
	}
	for _, scheme := range schemes {
		if u.Scheme == scheme {
			return u.Host != "" || scheme == "unix" && u.Path != ""
		}
	}
	return false
}
