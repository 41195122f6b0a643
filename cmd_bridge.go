package main

import (
	"context"
	"sync"

	"github.com/spf13/cobra"

	"github.com/selvedge/selvedge/internal/bridge"
	"github.com/selvedge/selvedge/internal/systemd"
)

func newBridge(g *global) *cobra.Command {
	var f settingFlags
	cmd := &cobra.Command{
		Use:   "bridge",
		Short: "Push what comes from RabbitMQ, Redis or NATS to the users that it names",
		Long: "Read messages from a broker and push each to its users. From RabbitMQ, Redis streams and JetStream a message is acknowledged once its\n" +
			"outcome is certain, so none is lost whatever is killed; Redis pub/sub and core NATS forget what they send. Several bridges\n" +
			"share the work, but for those of one Redis channel. URLs with passwords are better given by SELVEDGE_BRIDGE__AMQP, _REDIS or _NATS.",
		Example: `  selvedge bridge --amqp amqp://localhost --queue chat --exchange chat-fanout --user json:to
  selvedge bridge --redis redis://localhost --stream chat --user header:user --payload header:text
  selvedge bridge --redis redis://localhost --channel chat --user json:to.#.id --via http://127.0.0.1:8081
  selvedge bridge --nats nats://localhost --stream CHAT --subject 'chat.>' --offline dead-letter`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := g.logger()
			if err != nil {
				return err
			}
			settings, err := f.load(cmd)
			if err != nil {
				return err
			}
			cfg, err := bridge.FromSettings(settings, log)
			if err != nil {
				return usage(err)
			}
			b, err := bridge.New(cfg)
			if err != nil {
				return usage(settings.Locate(err))
			}
			return runBridge(cmd.Context(), b, systemd.Notifier{Log: log})
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	f.bind(flags)
	f.add(flags, "amqp", "bridge.amqp", "`URL` of a RabbitMQ: amqp://HOST:PORT/VHOST, amqps://")
	f.add(flags, "queue", "bridge.queue", "`NAME` of the queue that all bridges share; declared durable where it is not there")
	f.add(flags, "exchange", "bridge.exchange", "`NAME` of the exchange that the queue is bound to; declared fanout where it is not there")
	f.add(flags, "redis", "bridge.redis", "`URL` of a Redis: redis://HOST:PORT/DB, rediss://")
	f.add(flags, "channel", "bridge.channel", "`NAME` of a channel of Redis pub/sub")
	f.add(flags, "nats", "bridge.nats", "`URL` of a NATS server: nats://HOST:PORT, tls://; several by comma")
	f.add(flags, "subject", "bridge.subject", "`SUBJECT` of NATS, of JetStream one of the stream's")
	f.add(flags, "stream", "bridge.stream", "`NAME` of a stream of Redis or JetStream")
	f.add(flags, "group", "bridge.group", "`NAME` under which bridges share a stream or a subject (default selvedge)")
	f.add(flags, "field", "bridge.field", "`NAME` of the field that holds the body in a Redis stream (default: all fields, as a JSON object)")
	f.add(flags, "user", "bridge.user", "`EXPRESSION` that finds a message's users: json:PATH, header:NAME, all; several by comma (default json:user)")
	f.add(flags, "payload", "bridge.payload", "`EXPRESSION` that finds what sessions get: body, json:PATH, header:NAME (default body)")
	f.add(flags, "id", "bridge.id", "`EXPRESSION` that finds a message's id: json:PATH, header:NAME (default: the broker's)")
	f.add(flags, "binary", "bridge.binary", "sessions get binary messages, `BOOL`")
	flags.Lookup("binary").NoOptDefVal = "true"
	f.add(flags, "offline", "bridge.offline", "`WHAT` becomes of messages to users who are offline: ack or dead-letter (default ack)")
	f.add(flags, "tries", "bridge.tries", "`N` tries before a message is parked (default 10)")
	f.add(flags, "timeout", "bridge.timeout", "how long one try may take, a `DURATION` up to 15s (default 5s)")
	f.add(flags, "in-flight", "bridge.in_flight", "`N` messages that are taken and have no outcome yet, at most (default 512)")
	f.add(flags, "admin", "admin.addr", "`ADDRESS` of the operator's listener (default "+bridge.DefaultAdmin+"; off: none)")
	f.add(flags, "via", "bridge.via", "`URL` of any backend's RPC port or an edge's admin port, instead of finding the members")
	f.add(flags, "service", "bridge.service", "`NAME` of the service (default default)")
	f.add(flags, "token-file", "bridge.token_file", "`FILE` with the push service's token (default: SELVEDGE_TOKEN)")
	f.addMembership(flags)
	return cmd
}

// runBridge runs a bridge until ctx ends, and keeps systemd informed.
func runBridge(ctx context.Context, b *bridge.Bridge, systemd systemd.Notifier) error {
	ended := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-b.Ready():
			systemd.Ready()
		case <-ended:
			return
		}
		select {
		case <-ctx.Done():
			systemd.Stopping()
		case <-ended:
		}
	})
	defer watching.Wait()
	defer close(ended)
	return b.Run(ctx)
}
