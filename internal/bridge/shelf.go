package bridge

import (
	"context"
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

// shelf puts letters into queues of their own, named QUEUE.parked and QUEUE.offline. A letter is kept when the broker has confirmed it.
type shelf struct {
	conn     *amqp.Connection
	queue    string
	channels chan *shelfChannel // not in use at present; nil stands for one that is to be opened
}

// shelfChannel takes one letter at a time, so that what the broker sends back is known to be that one.
type shelfChannel struct {
	*amqp.Channel
	back <-chan amqp.Return // has room for one
}

const shelfChannels = 16 // letters under way at once

func newShelf(conn *amqp.Connection, queue string) *shelf {
	s := &shelf{conn: conn, queue: queue, channels: make(chan *shelfChannel, shelfChannels)}
	for range shelfChannels {
		s.channels <- nil
	}
	return s
}

func (s *shelf) keep(ctx context.Context, d amqp.Delivery, l letter) (err error) {
	var ch *shelfChannel
	select {
	case ch = <-s.channels:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() {
		if err != nil && ch != nil {
			_ = ch.Close() // a confirmation that comes later must not be taken for the next letter's
			ch = nil
		}
		s.channels <- ch
	}()
	if ch == nil {
		if ch, err = s.open(); err != nil {
			return err
		}
	}
	name := s.queue + "." + l.place()
	confirmed, err := ch.PublishWithDeferredConfirmWithContext(ctx, "", name, true, false, parcel(d, l))
	if err != nil {
		return err
	}
	took, err := confirmed.WaitContext(ctx)
	if err != nil {
		return err
	}
	select {
	case <-ch.back: // comes before the confirmation
		return fmt.Errorf("queue %s is gone; it is declared when the bridge connects", name)
	default:
	}
	if !took {
		return errors.New("the broker has refused to keep it")
	}
	return nil
}

func (s *shelf) open() (*shelfChannel, error) {
	ch, err := s.conn.Channel()
	if err != nil {
		return nil, err
	}
	if err := ch.Confirm(false); err != nil {
		_ = ch.Close()
		return nil, err
	}
	return &shelfChannel{ch, ch.NotifyReturn(make(chan amqp.Return, 1))}, nil
}

// parcel is the message as it came, for good, with what the letter says in its headers.
func parcel(d amqp.Delivery, l letter) amqp.Publishing {
	headers := make(amqp.Table, len(d.Headers)+3)
	for name, value := range d.Headers {
		headers[name] = value
	}
	for name, value := range l.headers() {
		headers[name] = value
	}
	return amqp.Publishing{
		Headers: headers, ContentType: d.ContentType, ContentEncoding: d.ContentEncoding, DeliveryMode: amqp.Persistent,
		CorrelationId: d.CorrelationId, ReplyTo: d.ReplyTo, MessageId: d.MessageId, Timestamp: d.Timestamp, Type: d.Type, AppId: d.AppId,
		Body: d.Body,
	}
}
