package peerlink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"

	"go.uber.org/zap"

	peerv1 "github.com/selvedge/selvedge/internal/peerv1"
)

var (
	// ErrRefused is returned when the host at the address refuses connections: no process listens there, so the one that did has
	// ended, or has closed its listener. A firewall that rejects looks the same. Had the process just ended, it may still have
	// handled the request.
	ErrRefused = errors.New("connection refused")
	// ErrBusy is returned at once when too much waits for this member already. The request was not sent; try again later.
	ErrBusy = errors.New("too many requests wait for this member")
	// ErrLost is returned when the stream ended before the reply came, or could not be opened for another reason than ErrRefused.
	// The request may or may not have been handled, and whether the member lives is not known.
	ErrLost = errors.New("stream lost")
)

// Config is what [New] takes.
type Config struct {
	// Token is the bearer token that the members ask for; empty where they ask for none.
	Token string
	// TLS says how members are called, of each new stream; nil: without TLS.
	TLS func() *tls.Config
	// Logger gets what an operator should know. Default: nothing is logged.
	Logger *zap.Logger
	// OnLost, if set, is told the address when a stream that the member had accepted broke, after all who waited have their errors.
	// It runs in a goroutine of its own, and should find out whether the process is gone: a Call now is refused if so. Ends that
	// Reset and Close make are not told.
	OnLost func(addr string)
}

// Links holds one stream to each member that was spoken to.
type Links struct {
	cfg     Config
	running sync.WaitGroup // a goroutine for each stream, until all of it has ended

	mu      sync.Mutex
	streams map[string]*stream // by address; those that have not ended
	closed  bool
}

// New returns Links that hold no stream yet.
func New(cfg Config) *Links {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.OnLost == nil {
		cfg.OnLost = func(string) {}
	}
	return &Links{cfg: cfg, streams: make(map[string]*stream)}
}

// Call sends r to the member whose RPC listener is at addr, host:port, and waits for its reply or for the end of ctx, which should
// have a deadline: nothing else ends a call to a process that hangs, until pings find it out. The first Call to an address opens
// the stream; those that come meanwhile wait for it with the first one. Call does not pace itself.
//
// r.Call is ignored: the stream has its own count, and a reply shows that. r is not changed, and free again when Call returns.
//
// Errors are ErrRefused, ErrBusy, ErrLost, ctx's error, a Connect error with code unauthenticated where the member did not take the
// token, and what protobuf says of an r that it cannot encode. A call whose ctx ended may have been handled; its reply is dropped.
func (l *Links) Call(ctx context.Context, addr string, r *peerv1.Request) (*peerv1.Reply, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, err := l.stream(addr)
	if err != nil {
		return nil, err
	}
	return s.call(ctx, r)
}

// stream returns the stream to addr, a new one where there is none.
func (l *Links) stream(addr string) (*stream, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, fmt.Errorf("%w: closed by this member", ErrLost)
	}
	s, ok := l.streams[addr]
	if !ok {
		s = newStream(l, addr)
		l.streams[addr] = s
		l.running.Go(s.run)
	}
	return s, nil
}

// Reset ends all streams, calls under way included; the next Call to each address opens a new one. It is for after a stall of this
// process, when what waits unread is out of date and must not be taken for news. A reply that was read already may still be on its
// way out of a Call.
func (l *Links) Reset() { l.end("reset by this member") }

// Close ends all streams and lets no new one be opened. It waits until nothing runs any more, but for OnLost.
func (l *Links) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.end("closed by this member")
	l.running.Wait()
}

func (l *Links) end(why string) {
	l.mu.Lock()
	ended := l.streams
	l.streams = make(map[string]*stream)
	l.mu.Unlock()
	for _, s := range ended {
		s.end(fmt.Errorf("%w: %s", ErrLost, why))
	}
}

// forget takes s out, so that the next Call opens another; false: it was taken out already, by end.
func (l *Links) forget(s *stream) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.streams[s.addr] != s {
		return false
	}
	delete(l.streams, s.addr)
	return true
}
