package peerlink

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	"connectrpc.com/connect"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	peerv1 "github.com/selvedge/selvedge/internal/peerv1"
	"github.com/selvedge/selvedge/internal/rpc"
)

// maxCalls is how many calls may be under way on a stream: waiting to be sent, or for their replies.
const maxCalls = 16384

// stream is the caller's end of a stream. It owns its connection: a new stream is always a new connection, so a refusal is news, and
// nothing that the old one had in its buffers comes after.
type stream struct {
	links     *Links
	addr      string
	http      *http.Client
	closeConn func() // at once, whatever waits in its buffers
	ctx       context.Context
	cancel    context.CancelFunc
	out       *outbox

	mu    sync.Mutex
	last  uint64 // call
	calls map[uint64]*call
	ended error // what those who wait get; nil: it has not ended
}

// call is a request under way.
type call struct {
	message
	done chan result // has room for the one result
}

type result struct {
	reply *peerv1.Reply
	err   error
}

func newStream(l *Links, addr string) *stream {
	s := &stream{links: l, addr: addr, out: newOutbox(), calls: make(map[uint64]*call)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.http, s.closeConn = rpc.Client(l.cfg.Token, l.cfg.TLS)
	return s
}

// newClient returns a client without compression, for which Connect would ask: between members it costs more than it saves.
func newClient(client *http.Client, url string) peerv1.PeerServiceClient {
	return peerv1.NewPeerServiceClient(client, url, connect.WithGRPC(), connect.WithAcceptCompression("gzip", nil, nil))
}

// run is the stream's life. It ends when the stream is broken, or has been ended.
func (s *stream) run() {
	talk := newClient(s.http, rpc.URL(s.addr, s.links.cfg.TLS != nil)).Talk(s.ctx)
	_ = talk.Send(nil) // opens the stream; if that fails, Receive says why
	var sending sync.WaitGroup
	sending.Go(func() {
		s.out.deliver(s.ctx, func(encoded []byte) error {
			requests := new(peerv1.Requests)
			requests.ProtoReflect().SetUnknown(encoded) // what is encoded already passes as it is
			return talk.Send(requests)
		})
	})

	accepted, err := s.receive(talk)
	err = s.explain(accepted, err)
	broke := s.links.forget(s)
	s.end(err)
	sending.Wait()
	_ = talk.CloseResponse()
	if broke && accepted {
		s.links.cfg.Logger.Info("the stream to a member broke", zap.String("addr", s.addr), zap.Error(err))
		go s.links.cfg.OnLost(s.addr)
	}
}

// receive hands out the replies until the stream ends. accepted tells whether the member took the stream, which it says by a first
// message without replies.
func (s *stream) receive(talk *connect.BidiStreamForClient[peerv1.Requests, peerv1.Replies]) (accepted bool, err error) {
	for {
		replies, err := talk.Receive()
		if err != nil {
			return accepted, err
		}
		accepted = true
		s.mu.Lock()
		for _, reply := range replies.Replies {
			if c := s.calls[reply.Call]; c != nil { // else nobody waits any more
				delete(s.calls, reply.Call)
				c.done <- result{reply: reply}
			}
		}
		s.mu.Unlock()
	}
}

// explain makes of what ended the stream what Call returns.
func (s *stream) explain(accepted bool, err error) error {
	switch {
	case connect.CodeOf(err) == connect.CodeUnauthenticated:
		return err
	case !accepted && refused(s.ctx, s.addr, err):
		return fmt.Errorf("%w: %w", ErrRefused, err)
	default:
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
}

// end ends the stream: all who wait get err. Only the first end counts.
func (s *stream) end(err error) {
	s.mu.Lock()
	if s.ended == nil {
		s.ended = err
	}
	for _, c := range s.calls {
		c.done <- result{err: s.ended}
	}
	clear(s.calls)
	s.mu.Unlock()
	s.cancel()
	s.closeConn()
}

// call is [Links.Call] on this stream.
func (s *stream) call(ctx context.Context, r *peerv1.Request) (*peerv1.Reply, error) {
	encoded, err := proto.Marshal(r)
	if err != nil {
		return nil, err
	}
	c := &call{message: message{encoded: encoded}, done: make(chan result, 1)}
	if err := s.send(c); err != nil {
		return nil, err
	}
	select {
	case result := <-c.done:
		return result.reply, result.err
	case <-ctx.Done():
		s.abandon(c)
		return nil, ctx.Err()
	}
}

// send numbers c and puts it into the outbox.
func (s *stream) send(c *call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		return s.ended
	}
	s.last++
	c.call = s.last
	if len(s.calls) >= maxCalls || !s.out.offer(&c.message) {
		return ErrBusy
	}
	s.calls[c.call] = c
	return nil
}

func (s *stream) abandon(c *call) {
	s.mu.Lock()
	delete(s.calls, c.call)
	s.mu.Unlock()
	s.out.remove(&c.message)
}
