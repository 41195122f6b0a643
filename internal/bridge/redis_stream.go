package bridge

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// stream is a Redis stream as a source. Bridges share it as consumers of one group: each entry is pending at one of them until it is acknowledged.
// Those that are not dead say again and again that they have their entries still; what nobody has said so of is claimed by another.
type stream struct {
	client *redis.Client
	name   string
	group  string
	field  string // "": all fields
	// consumer is this host's: a bridge that is started again has back at once what the one before it had.
	consumer string
	wake     chan struct{} // has a value when there is something to acknowledge
	last     string        // the newest entry that was read; a group that has gone is made anew behind it

	mu    sync.Mutex
	held  map[string]bool // ids of entries that were read; true: has ended, and Redis is to be told
	ended []string        // those that are true
}

const (
	streamBlock = time.Second      // of a read that finds nothing; a drain waits for it
	streamBatch = 128              // entries in one read, at most
	streamRenew = 5 * time.Second  // entries in flight are claimed anew
	streamClaim = 15 * time.Second // entries that were not are claimed by others, well within the minute that members remember ids
	streamAcks  = 10 * time.Millisecond
)

func newStream(c Config) (*stream, error) {
	client, err := newRedis(c)
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("this host's name, under which it consumes: %w", err)
	}
	return &stream{
		client: client, name: c.Stream, group: c.Group, field: c.Field, consumer: "selvedge-" + host, wake: make(chan struct{}, 1), last: "$", held: make(map[string]bool),
	}, nil
}

func (s *stream) Close() error { return s.client.Close() }

func (s *stream) kind() string { return "redis_stream" }

func (s *stream) run(ctx context.Context, b *Bridge) error {
	if err := s.join(ctx); err != nil {
		return err
	}
	open, shut := context.WithCancel(context.WithoutCancel(ctx)) // until all in flight has ended
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer shut()
	helpers.Go(func() { s.renew(open) })
	helpers.Go(func() { s.tell(open) })

	b.reading(ctx)
	if err := s.read(ctx, b); err != nil {
		return err
	}
	b.idle()
	shut()
	helpers.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), streamRenew)
	defer cancel()
	return s.acknowledge(last)
}

// join makes the group, and the stream, where they are not there. A new group begins with what is added from then on.
func (s *stream) join(ctx context.Context) error {
	err := s.client.XGroupCreateMkStream(ctx, s.name, s.group, s.last).Err()
	if err != nil && !strings.HasPrefix(err.Error(), "BUSYGROUP") { // it is there
		return err
	}
	return nil
}

// read takes entries until ctx ends: first those that a bridge of this host had before, then new ones, and from time to time those of the dead.
func (s *stream) read(ctx context.Context, b *Bridge) error {
	var claimed time.Time
	mine := "0" // the entry up to which those of this consumer were read
	for b.awaitRoom(ctx) {
		var err error
		switch {
		case mine != "":
			mine, err = s.readMine(ctx, b, mine)
		case time.Since(claimed) > streamRenew:
			claimed = time.Now()
			err = s.claim(ctx, b)
		default:
			err = s.readNew(ctx, b)
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
	return nil
}

// readMine reads entries that are pending here, behind one, and returns the last; "" where there are no more.
func (s *stream) readMine(ctx context.Context, b *Bridge, after string) (last string, err error) {
	entries, err := s.readGroup(ctx, after, b.room(), -1)
	if err != nil || len(entries) == 0 {
		return "", err
	}
	return entries[len(entries)-1].ID, s.take(ctx, b, entries, true)
}

func (s *stream) readNew(ctx context.Context, b *Bridge) error {
	entries, err := s.readGroup(ctx, ">", b.room(), streamBlock)
	if err != nil || len(entries) == 0 {
		return err
	}
	s.last = entries[len(entries)-1].ID
	return s.take(ctx, b, entries, false)
}

func (s *stream) readGroup(ctx context.Context, after string, count int, block time.Duration) ([]redis.XMessage, error) {
	// A read that was cancelled halfway would leave its entries here, unread.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), streamRenew)
	defer cancel()
	streams, err := s.client.XReadGroup(ctx, &redis.XReadGroupArgs{
		Group: s.group, Consumer: s.consumer, Streams: []string{s.name, after}, Count: int64(min(count, streamBatch)), Block: block,
	}).Result()
	if err == redis.Nil || len(streams) == 0 { //nolint:errorlint // the client returns it bare
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return streams[0].Messages, nil
}

// claim takes over entries of consumers that are dead.
func (s *stream) claim(ctx context.Context, b *Bridge) error {
	for start := "0-0"; b.awaitRoom(ctx); {
		entries, next, gone, err := s.client.XAutoClaimWithDeleted(ctx, &redis.XAutoClaimArgs{
			Stream: s.name, Group: s.group, Consumer: s.consumer, MinIdle: streamClaim, Start: start, Count: int64(min(b.room(), streamBatch)),
		}).Result()
		if err != nil {
			return err
		}
		if len(gone) > 0 {
			b.lose(trimmed, len(gone))
		}
		if err := s.take(ctx, b, entries, true); err != nil {
			return err
		}
		if next == "0-0" {
			return nil
		}
		start = next
	}
	return nil
}

// take gives entries to the bridge, but for those that it has already.
func (s *stream) take(ctx context.Context, b *Bridge, entries []redis.XMessage, again bool) error {
	for _, entry := range entries {
		s.mu.Lock()
		_, has := s.held[entry.ID]
		if !has {
			s.held[entry.ID] = false
		}
		s.mu.Unlock()
		if has {
			continue
		}
		if entry.Values == nil { // pending, and no longer in the stream
			b.lose(trimmed, 1)
			s.settle(entry.ID, true)
			continue
		}
		if again {
			b.metrics.redelivers.Inc()
		}
		m, err := s.message(entry)
		if err != nil {
			return err
		}
		if !b.take(ctx, m) {
			s.settle(entry.ID, false) // it stays pending, and is claimed
		}
	}
	return nil
}

func (s *stream) message(entry redis.XMessage) (*message, error) {
	body, err := s.body(entry)
	if err != nil {
		return nil, err
	}
	return &message{
		body: body,
		header: func(name string) []string {
			if value, ok := entry.Values[name].(string); ok {
				return []string{value}
			}
			return nil
		},
		id:   positionID("redis", s.name, entry.ID, body),
		end:  func(settled bool) { s.settle(entry.ID, settled) },
		keep: func(ctx context.Context, l letter) error { return s.keep(ctx, entry, l) },
	}, nil
}

// body is the field that holds it, empty where the entry has none; or all fields.
func (s *stream) body(entry redis.XMessage) ([]byte, error) {
	if s.field == "" {
		return json.Marshal(entry.Values)
	}
	value, _ := entry.Values[s.field].(string)
	return []byte(value), nil
}

// keep adds the entry to a stream of its own.
func (s *stream) keep(ctx context.Context, entry redis.XMessage, l letter) error {
	values := maps.Clone(entry.Values)
	for name, value := range l.headers() {
		values[name] = value
	}
	return s.client.XAdd(ctx, &redis.XAddArgs{Stream: s.name + "." + l.place(), Values: values}).Err()
}

// settle ends an entry's stay here.
func (s *stream) settle(id string, settled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !settled {
		delete(s.held, id)
		return
	}
	s.held[id] = true
	s.ended = append(s.ended, id)
	s.nudge()
}

func (s *stream) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// tell acknowledges what ends, with what else does so within a moment, until ctx ends. Reads tell of a Redis that is away.
func (s *stream) tell(ctx context.Context) {
	for wait := streamAcks; ; {
		select {
		case <-s.wake:
		case <-ctx.Done():
			return
		}
		if !sleep(ctx, wait) {
			return
		}
		wait = streamAcks
		if s.acknowledge(ctx) != nil {
			wait = streamBlock
			s.nudge()
		}
	}
}

// acknowledge tells Redis of all that has ended. Until it knows, they are held, so that they are not taken again. One goroutine calls it at a time.
func (s *stream) acknowledge(ctx context.Context) error {
	for {
		s.mu.Lock()
		ids := slices.Clone(s.ended[:min(len(s.ended), streamBatch)])
		s.mu.Unlock()
		if len(ids) == 0 {
			return nil
		}
		if err := s.client.XAck(ctx, s.name, s.group, ids...).Err(); err != nil {
			return err
		}
		s.mu.Lock()
		s.ended = slices.Delete(s.ended, 0, len(ids))
		for _, id := range ids {
			delete(s.held, id)
		}
		s.mu.Unlock()
	}
}

// renew claims what is in flight here anew, before others do, until ctx ends.
func (s *stream) renew(ctx context.Context) {
	for sleep(ctx, streamRenew) {
		s.renewOnce(ctx)
	}
}

func (s *stream) renewOnce(ctx context.Context) {
	s.mu.Lock()
	ids := slices.Collect(maps.Keys(s.held))
	s.mu.Unlock()
	for some := range slices.Chunk(ids, streamBatch) {
		if s.client.XClaimJustID(ctx, &redis.XClaimArgs{Stream: s.name, Group: s.group, Consumer: s.consumer, Messages: some}).Err() != nil {
			return // until the next time
		}
	}
}
