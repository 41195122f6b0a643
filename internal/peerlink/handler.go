package peerlink

import (
	"context"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	peerv1 "github.com/selvedge/selvedge/internal/peerv1"
)

// Serve handles a request. It is called for one request of a stream after another, in the order in which they were sent, and must
// not block: what takes longer goes elsewhere. reply is called once for each request, from any goroutine, before Serve returns or
// later; it does not block, sets the reply's call, and does nothing where the stream has ended. ctx ends with the stream.
//
// A request may be on its way to Serve while another goroutine calls [Handler.Reset]. Where that matters, call Reset and check
// ctx.Err() under one lock.
type Serve func(ctx context.Context, r *peerv1.Request, reply func(*peerv1.Reply))

// Handler is the callee's end of all streams to this member. It serves HTTP/2, at the path that came with it.
type Handler struct {
	service http.Handler

	mu      sync.Mutex
	streams map[*inbound]struct{}
}

// inbound is the callee's end of a stream, as [Handler.Reset] needs it.
type inbound struct {
	cancel   context.CancelFunc
	response *http.ResponseController // must not be used once ServeHTTP has returned
}

// NewHandler returns a handler that hands requests to serve, and the path where a mux should have it. The credential is checked in
// front of it.
func NewHandler(serve Serve, opts ...connect.HandlerOption) (path string, handler *Handler) {
	h := &Handler{streams: make(map[*inbound]struct{})}
	path, h.service = peerv1.NewPeerServiceHandler(service{serve}, opts...)
	return path, h
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	in := &inbound{cancel, http.NewResponseController(w)}
	h.mu.Lock()
	h.streams[in] = struct{}{}
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.streams, in)
		h.mu.Unlock()
	}()
	h.service.ServeHTTP(w, r.WithContext(ctx))
}

// Reset ends all streams to this member: requests that are unread are dropped, and replies that have not been sent, too. The callers
// see their streams break and open others. Serve may call it.
func (h *Handler) Reset() {
	past := time.Unix(1, 0)
	h.mu.Lock()
	defer h.mu.Unlock()
	for in := range h.streams {
		in.cancel()
		// Tells the caller, and wakes the goroutines that read and send. Over HTTP/1.1, where this may fail, there are no streams.
		_ = in.response.SetWriteDeadline(past)
	}
}

// service speaks the protocol.
type service struct{ serve Serve }

// Talk is the life of a stream.
func (s service) Talk(ctx context.Context, talk *connect.BidiStream[peerv1.Requests, peerv1.Replies]) error {
	if err := talk.Send(new(peerv1.Replies)); err != nil { // the stream is accepted
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	out := newOutbox()
	var sending sync.WaitGroup
	sending.Go(func() {
		out.deliver(ctx, func(encoded []byte) error {
			replies := new(peerv1.Replies)
			replies.ProtoReflect().SetUnknown(encoded) // what is encoded already passes as it is
			return talk.Send(replies)
		})
	})
	defer sending.Wait()
	defer cancel()
	for {
		requests, err := talk.Receive()
		if err != nil {
			return err
		}
		for _, r := range requests.Requests {
			// A caller that does not read its replies is not read from either.
			if !out.awaitRoom(ctx) {
				return connect.NewError(connect.CodeAborted, context.Cause(ctx))
			}
			call := r.Call
			s.serve(ctx, r, func(reply *peerv1.Reply) {
				if ctx.Err() == nil {
					out.put(&message{call: call, encoded: encode(reply)})
				}
			})
		}
	}
}

// encode encodes a reply; where that cannot be done, an error says so in its place.
func encode(reply *peerv1.Reply) []byte {
	encoded, err := proto.Marshal(reply)
	if err != nil {
		failed := &peerv1.Error{Code: connect.CodeInternal.String(), Message: err.Error()}
		encoded, _ = proto.Marshal(&peerv1.Reply{Body: &peerv1.Reply_Error{Error: failed}}) // nothing in it can fail
	}
	return encoded
}
