package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/selvedge/selvedge/backend/sender"
	"github.com/selvedge/selvedge/internal/admin"
)

// Bridge takes messages from one broker and pushes them. It runs once.
type Bridge struct {
	cfg     Config
	log     *zap.Logger
	source  source
	sender  *sender.Sender
	metrics *metrics

	user, payload, id expression

	pusher pusher        // sender, but for tests
	slots  chan struct{} // a value for each message in flight
	flight sync.WaitGroup
	lines  *lines
	giveUp chan struct{} // closed when what is not settled is left to the broker

	// What many messages have to say of one trouble is logged once a second.
	sayRetry, sayAside, sayLost rate.Sometimes

	ready     chan struct{} // closed when the broker is read for the first time
	readyOnce sync.Once
	trouble   atomic.Pointer[string] // why the broker is not being read; nil: it is
	adminAddr net.Addr
}

// source is a broker, as the bridge reads it.
type source interface {
	// kind names it in metrics and logs.
	kind() string
	// run connects, calls b.reading, and gives b.take what comes, until the connection is lost: then it returns why. When ctx ends it takes
	// nothing more, waits for what it has given (b.idle), tells the broker of their ends, and returns nil.
	run(ctx context.Context, b *Bridge) error
}

// errMisuse wraps what no waiting mends: run ends with it.
var errMisuse = errors.New("the broker's set-up is another one")

// New checks cfg. It connects to nothing.
func New(cfg Config) (*Bridge, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("bridge: %w", err)
	}
	src, err := cfg.newSource()
	if err != nil {
		return nil, fmt.Errorf("bridge: %w", err)
	}
	b := newBridge(cfg, src)
	if b.metrics, err = newMetrics(cfg.Sender.Service, src.kind(), cfg.Metrics); err != nil {
		return nil, fmt.Errorf("bridge: %w", err)
	}
	cfg.Sender.Metrics = cfg.Metrics
	if b.sender, err = sender.New(cfg.Sender); err != nil {
		return nil, fmt.Errorf("bridge: %w", err)
	}
	b.pusher = b.sender
	return b, nil
}

// newBridge makes a bridge of a Config that was checked, without metrics and pusher.
func newBridge(cfg Config, src source) *Bridge {
	b := &Bridge{
		cfg: cfg, log: cfg.Logger.With(zap.String("source", src.kind())), source: src,
		slots: make(chan struct{}, cfg.InFlight), lines: newLines(),
		giveUp: make(chan struct{}), ready: make(chan struct{}),
		sayRetry: rate.Sometimes{Interval: time.Second}, sayAside: rate.Sometimes{Interval: time.Second}, sayLost: rate.Sometimes{Interval: time.Second},
	}
	b.user, _ = parseExpression(cfg.User, []string{"json", "header", "all"})
	b.payload, _ = parseExpression(cfg.Payload, []string{"json", "header", "body"})
	b.id, _ = parseExpression(cfg.ID, []string{"json", "header"})
	starting := "starting: the broker is not read yet"
	b.trouble.Store(&starting)
	return b
}

// Check finds what New would refuse. It starts nothing.
func (c Config) Check() error {
	c = c.withDefaults()
	if err := c.check(); err != nil {
		return err
	}
	_, err := c.newSource()
	return err
}

func (c Config) newSource() (source, error) {
	switch {
	case c.AMQP != "":
		return newQueue(c)
	case c.Channel != "":
		return newChannel(c)
	case c.Redis != "":
		return newStream(c)
	case c.Stream != "":
		return newJetStream(c), nil
	default:
		return newSubject(c), nil
	}
}

// Ready is closed when the broker is being read for the first time.
func (b *Bridge) Ready() <-chan struct{} { return b.ready }

// AdminAddr is where the operator's listener is; nil where there is none. It is known once Ready is closed.
func (b *Bridge) AdminAddr() net.Addr { return b.adminAddr }

// Run reads the broker until ctx ends. Then it takes nothing more, lets each try that is under way come to its end, which takes up to
// [Config.Timeout], leaves what has no outcome to the broker, and returns nil. An error means that it could not listen, or that the broker's
// set-up is not what the configuration says.
func (b *Bridge) Run(ctx context.Context) error {
	defer b.sender.Close()
	if c, ok := b.source.(io.Closer); ok {
		defer func() { _ = c.Close() }()
	}
	if b.cfg.Admin != "" {
		var config net.ListenConfig
		ln, err := config.Listen(ctx, "tcp", b.cfg.Admin)
		if err != nil {
			return fmt.Errorf("bridge: %w", err)
		}
		b.adminAddr = ln.Addr()
		server := &http.Server{Handler: b.adminHandler(), ReadHeaderTimeout: 10 * time.Second}
		var serving sync.WaitGroup
		serving.Go(func() { _ = server.Serve(ln) }) // until Close, which is its only end
		defer serving.Wait()
		defer func() { _ = server.Close() }()
		b.log.Info("operator's listener", zap.Stringer("admin", b.adminAddr))
	}
	ctx, stop := context.WithCancel(ctx)
	context.AfterFunc(ctx, b.drain)
	err := b.follow(ctx)
	stop()
	b.idle()
	return err
}

// drain has messages end: what the broker keeps is left to it after the present try, what it has forgotten gets some more time.
func (b *Bridge) drain() {
	draining := "draining"
	b.trouble.Store(&draining)
	if b.cfg.forgets() {
		time.AfterFunc(b.cfg.Timeout, func() { close(b.giveUp) })
		return
	}
	close(b.giveUp)
}

// Waits between failing connections: random within the upper half of a span that doubles.
const (
	connectFirst = 100 * time.Millisecond
	connectMost  = 5 * time.Second
)

// follow reads the broker, again and again where the connection is lost.
func (b *Bridge) follow(ctx context.Context) error {
	for span := connectFirst; ; span = min(2*span, connectMost) {
		began := time.Now()
		err := b.source.run(ctx, b)
		b.metrics.connected.Set(0)
		switch {
		case ctx.Err() != nil:
			if err != nil {
				b.log.Warn("stopped without the broker; what it was not told of it delivers again", zap.Error(err))
			}
			return nil
		case errors.Is(err, errMisuse):
			return fmt.Errorf("bridge: %w", err)
		}
		b.metrics.losses.Inc()
		text := "the broker is not read: " + err.Error()
		b.trouble.Store(&text)
		if time.Since(began) > connectMost {
			span = connectFirst
		}
		wait := span/2 + rand.N(span/2)
		b.log.Error("the broker is not read; trying again", zap.Duration("wait", wait), zap.Error(err))
		if !sleep(ctx, wait) {
			return nil
		}
	}
}

// sleep returns false where ctx ended before d was over.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// reading is called by a source that takes messages from now on.
func (b *Bridge) reading(ctx context.Context) {
	if ctx.Err() == nil {
		b.trouble.Store(nil)
	}
	b.metrics.connected.Set(1)
	b.log.Info("reading the broker", zap.String("from", b.cfg.Source()))
	b.readyOnce.Do(func() { close(b.ready) })
}

// lose counts messages that are lost before they came here.
func (b *Bridge) lose(r lossReason, n int) {
	b.metrics.lost.WithLabelValues(string(r)).Add(float64(n))
	b.sayLost.Do(func() { b.log.Error("messages are lost", zap.String("reason", string(r)), zap.Int("messages", n)) })
}

// room is how many messages can be taken without waiting, by a source that takes them from one goroutine.
func (b *Bridge) room() int { return cap(b.slots) - len(b.slots) }

// awaitRoom waits until there is some, and tells whether ctx was still on.
func (b *Bridge) awaitRoom(ctx context.Context) bool {
	select {
	case b.slots <- struct{}{}:
		<-b.slots
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// idle waits for the end of all that was taken.
func (b *Bridge) idle() { b.flight.Wait() }

func (b *Bridge) adminHandler() http.Handler {
	return admin.Handler(admin.Config{Token: func() string { return b.cfg.AdminToken }, Ready: b.isReady, Show: b.cfg.Metrics})
}

func (b *Bridge) isReady() error {
	if text := b.trouble.Load(); text != nil {
		return errors.New(*text)
	}
	return nil
}
