package bridge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// dialNATS connects. The connection does not come back by itself: the bridge makes a new one, and says so meanwhile.
func dialNATS(url string, lost chan<- error) (*nats.Conn, error) {
	return nats.Connect(url,
		nats.Name("selvedge bridge"), nats.Timeout(natsTimeout), nats.NoReconnect(), nats.PingInterval(natsPing), nats.MaxPingsOutstanding(2),
		nats.ClosedHandler(func(conn *nats.Conn) {
			select {
			case lost <- conn.LastError():
			default:
			}
		}),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // else it writes to standard error
	)
}

const (
	natsTimeout = 5 * time.Second
	natsPing    = 10 * time.Second
)

// subject is a subject of core NATS as a source, shared by the bridges of one queue group. NATS sends a message to one of those that
// listen at that moment, and forgets it.
type subject struct{ url, name, group string }

func newSubject(c Config) *subject { return &subject{c.NATS, c.Subject, c.Group} }

func (s *subject) kind() string { return "nats" }

// Bounds of what waits here for room; more is thrown away, and counted.
const (
	subjectMessages = 65_536
	subjectBytes    = 64 << 20
)

func (s *subject) run(ctx context.Context, b *Bridge) error {
	lost := make(chan error, 1)
	conn, err := dialNATS(s.url, lost)
	if err != nil {
		return err
	}
	defer conn.Close()
	sub, err := conn.QueueSubscribeSync(s.name, s.group)
	if err != nil {
		return err
	}
	if err := sub.SetPendingLimits(subjectMessages, subjectBytes); err != nil {
		return err
	}
	if err := conn.FlushTimeout(natsTimeout); err != nil { // the server has it
		return err
	}
	// Once ctx has ended the server is asked to send nothing more; what it has sent by then is taken.
	defer context.AfterFunc(ctx, func() { _ = sub.Drain() })()
	b.reading(ctx)
	open := context.WithoutCancel(ctx)
	dropped := 0
	for {
		m, err := sub.NextMsgWithContext(open)
		if now, countErr := sub.Dropped(); countErr == nil && now > dropped {
			b.lose(overflowed, now-dropped)
			dropped = now
		}
		switch {
		case err == nil:
			b.take(open, natsMessage(m.Data, m.Header))
		case errors.Is(err, nats.ErrSlowConsumer): // said once; the others are there
		case ctx.Err() != nil:
			b.idle()
			return nil
		default:
			return natsReason(lost, err)
		}
	}
}

func natsMessage(body []byte, header nats.Header) *message {
	return &message{body: body, header: func(name string) []string { return header[name] }, end: func(bool) {}}
}

// natsReason is why a connection has ended, where the connection says it.
func natsReason(lost <-chan error, err error) error {
	select {
	case reason := <-lost:
		if reason != nil {
			return fmt.Errorf("%w: %w", err, reason)
		}
	case <-time.After(100 * time.Millisecond):
	}
	return err
}
