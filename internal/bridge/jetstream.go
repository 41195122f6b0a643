package bridge

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// jetStream is a JetStream stream as a source. Bridges share it by a durable consumer: a message that is not acknowledged, and of which its bridge does
// not say that it is at work on it, is delivered again, to any.
type jetStream struct {
	url, stream, consumer, filter string

	mu   sync.Mutex
	held map[streamPlace]jetstream.Msg // in flight
}

// streamPlace names a message, also where the stream is made anew and its numbers come again.
type streamPlace struct {
	sequence uint64
	added    int64 // ns since 1970
}

const (
	jetStreamWait  = 15 * time.Second // without a word of a message, until it is delivered again; well within the minute that members remember ids
	jetStreamRenew = 5 * time.Second
	jetStreamBatch = 256              // messages that the client asks for ahead
	jetStreamOut   = 65_536           // messages in flight at all bridges
	jetStreamPull  = 30 * time.Second // a request for messages; a dead connection is noticed within it
)

func newJetStream(c Config) *jetStream {
	return &jetStream{url: c.NATS, stream: c.Stream, consumer: c.Group, filter: c.Subject, held: make(map[streamPlace]jetstream.Msg)}
}

func (j *jetStream) kind() string { return "jetstream" }

func (j *jetStream) run(ctx context.Context, b *Bridge) error {
	lost := make(chan error, 1)
	conn, err := dialNATS(j.url, lost)
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	setup, cancel := context.WithTimeout(ctx, natsTimeout)
	defer cancel()
	consumer, err := j.join(setup, js)
	if err != nil {
		return err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(min(b.cfg.InFlight, jetStreamBatch)), jetstream.PullExpiry(jetStreamPull),
		jetstream.WithMessagesErrOnMissingHeartbeat(true))
	if err != nil {
		return err
	}
	defer messages.Stop()
	defer context.AfterFunc(ctx, messages.Drain)()

	renewing, stop := context.WithCancel(context.WithoutCancel(ctx))
	var renewed sync.WaitGroup
	defer renewed.Wait()
	defer stop()
	renewed.Go(func() { j.renew(renewing) })

	b.reading(ctx)
	for {
		m, err := messages.Next()
		switch {
		case err == nil:
			if err := j.take(ctx, b, js, m); err != nil {
				return err
			}
		case ctx.Err() != nil && errors.Is(err, jetstream.ErrMsgIteratorClosed):
			b.idle()
			return conn.FlushTimeout(natsTimeout) // the last acknowledgements
		default:
			return natsReason(lost, err)
		}
	}
}

// join makes the durable consumer where it is not there, and the places for letters. A new consumer begins with what is published from then on.
func (j *jetStream) join(ctx context.Context, js jetstream.JetStream) (jetstream.Consumer, error) {
	source, err := js.Stream(ctx, j.stream)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", j.stream, err)
	}
	for _, place := range []string{placeParked, placeOffline} {
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{
			Name: j.stream + "-" + place, Subjects: []string{j.letters(place)}, Replicas: source.CachedInfo().Config.Replicas,
			Description: "put aside by selvedge bridge",
		})
		if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // it is there
			return nil, fmt.Errorf("stream %s-%s: %w", j.stream, place, err)
		}
	}
	consumer, err := source.Consumer(ctx, j.consumer)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		consumer, err = source.CreateConsumer(ctx, jetstream.ConsumerConfig{
			Durable: j.consumer, FilterSubject: j.filter, DeliverPolicy: jetstream.DeliverNewPolicy, AckPolicy: jetstream.AckExplicitPolicy,
			AckWait: jetStreamWait, MaxDeliver: -1, MaxAckPending: jetStreamOut, Description: "shared by all selvedge bridges",
		})
	}
	if err != nil {
		return nil, fmt.Errorf("consumer %s: %w", j.consumer, err)
	}
	switch has := consumer.CachedInfo().Config; {
	case has.AckPolicy != jetstream.AckExplicitPolicy:
		return nil, fmt.Errorf("%w: consumer %s does not ask for each message to be acknowledged; choose another --group", errMisuse, j.consumer)
	case j.filter != "" && has.FilterSubject != j.filter:
		return nil, fmt.Errorf("%w: consumer %s is there, for subject %q; choose another --group, or leave --subject out", errMisuse, j.consumer, has.FilterSubject)
	case has.AckWait < 2*jetStreamRenew:
		return nil, fmt.Errorf("%w: consumer %s waits %v for an acknowledgement; want %v or more", errMisuse, j.consumer, has.AckWait, 2*jetStreamRenew)
	}
	return consumer, nil
}

// letters is the subject of a place for letters.
func (j *jetStream) letters(place string) string { return "selvedge." + place + "." + j.stream }

// take gives m to the bridge, unless it has it already.
func (j *jetStream) take(ctx context.Context, b *Bridge, js jetstream.JetStream, m jetstream.Msg) error {
	at, err := m.Metadata()
	if err != nil {
		return err
	}
	if at.NumDelivered > 1 {
		b.metrics.redelivers.Inc()
	}
	place := streamPlace{at.Sequence.Stream, at.Timestamp.UnixNano()}
	j.mu.Lock()
	_, has := j.held[place]
	j.held[place] = m // the newest delivery is the one to answer
	j.mu.Unlock()
	if has {
		return nil
	}
	out := natsMessage(m.Data(), m.Headers())
	out.id = positionID("nats", j.stream, strconv.FormatUint(place.sequence, 10), m.Data())
	out.end = func(settled bool) { j.end(place, settled) }
	out.keep = func(ctx context.Context, l letter) error { return j.keep(ctx, js, m, out.id, l) }
	if !b.take(ctx, out) {
		out.end(false)
	}
	return nil
}

// end answers a message. Where the connection is gone, it is delivered again.
func (j *jetStream) end(place streamPlace, settled bool) {
	j.mu.Lock()
	m := j.held[place]
	delete(j.held, place)
	j.mu.Unlock()
	if settled {
		_ = m.Ack()
	} else {
		_ = m.Nak()
	}
}

// renew says of messages in flight that they are being worked on.
func (j *jetStream) renew(ctx context.Context) {
	tick := time.NewTicker(jetStreamRenew)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		j.mu.Lock()
		for _, m := range j.held {
			_ = m.InProgress() // into a buffer
		}
		j.mu.Unlock()
	}
}

// keep publishes a message into a stream of its own. The id keeps a letter that is published again from being kept twice.
func (j *jetStream) keep(ctx context.Context, js jetstream.JetStream, m jetstream.Msg, id string, l letter) error {
	header := make(nats.Header)
	for name, values := range m.Headers() {
		if !strings.HasPrefix(name, "Nats-") { // those are for the server, and of the stream that it was in
			header[name] = values
		}
	}
	for name, value := range l.headers() {
		header.Set(name, value)
	}
	header.Set(subjectHeader, m.Subject())
	_, err := js.PublishMsg(ctx, &nats.Msg{Subject: j.letters(l.place()), Header: header, Data: m.Data()}, jetstream.WithMsgID(id+"-"+l.user))
	return err
}

// subjectHeader tells under which subject a message was published.
const subjectHeader = "selvedge-subject"
