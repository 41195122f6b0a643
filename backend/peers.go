package backend

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/peerv1"
	"github.com/selvedge/selvedge/internal/rpc"
)

// peers speaks to the other members: one HTTP/2 connection to each, opened when first needed.
type peers struct {
	backend *Backend
	http    *http.Client
	close   func() // ends all connections

	mu      sync.Mutex
	clients map[string]peerv1.PeerServiceClient // by RPC address
}

func newPeers(b *Backend) *peers {
	client, closeAll := rpc.Client(b.cfg.PeerToken)
	return &peers{backend: b, http: client, close: closeAll, clients: make(map[string]peerv1.PeerServiceClient)}
}

// client returns how to speak to a member, and the caller's half of the envelope.
func (p *peers) client(id string) (peerv1.PeerServiceClient, *peerv1.Caller, error) {
	snapshot := p.backend.view.Snapshot()
	m, known := snapshot.Member(id)
	if !known || m.RPCAddr == "" {
		return nil, nil, fmt.Errorf("member %s: %w: %w", id, errUnknownMember, ErrUnsettled)
	}
	caller := &peerv1.Caller{
		Member:      p.backend.cfg.ID,
		Incarnation: p.backend.incarnation,
		RingDigest:  snapshot.Ring.Digest(),
		Callee:      id,
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c, ok := p.clients[m.RPCAddr]
	if !ok {
		c = peerv1.NewPeerServiceClient(p.http, "http://"+m.RPCAddr, connect.WithGRPC())
		p.clients[m.RPCAddr] = c
	}
	return c, caller, nil
}

// forget drops the clients of addresses that no member has any more.
func (p *peers) forget(inUse map[string]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for addr := range p.clients {
		if !inUse[addr] {
			delete(p.clients, addr)
		}
	}
}

var errUnknownMember = errors.New("not known here (yet)")

// isGone tells whether err proves that the member's process is no more: its host refuses connections to the port.
func isGone(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// canStandIn tells whether another member may settle a push in the home's stead: where the home could not be reached or
// refused to be one, but not where it has begun and its answer is the truth.
func canStandIn(err error) bool {
	return isGone(err) || errors.Is(err, errUnknownMember) || connect.CodeOf(err) == connect.CodeUnavailable ||
		connect.CodeOf(err) == connect.CodeFailedPrecondition
}

func (p *peers) deliver(ctx context.Context, id, user string, m *message, hops int) ([]string, error) {
	client, caller, err := p.client(id)
	if err != nil {
		return nil, err
	}
	request := &peerv1.DeliverRequest{
		Caller: caller, User: user, Message: m.proto(), Hops: uint32(hops), RemainingMs: remaining(ctx), ExceptSession: m.except,
	}
	response, err := client.Deliver(ctx, connect.NewRequest(request))
	if err != nil {
		return nil, p.explain(id, err)
	}
	return response.Msg.Sessions, nil
}

// explain turns a peer's error into ours: what is uncertain stays uncertain, what was misuse stays misuse.
func (p *peers) explain(id string, err error) error {
	if some := pushv1.DetailOf(err).GetSessions(); some > 0 {
		err = &reached{err, int(some)}
	}
	switch {
	case isGone(err):
		return fmt.Errorf("member %s: %w", id, err)
	case connect.CodeOf(err) == connect.CodeAlreadyExists:
		return fmt.Errorf("member %s: %w", id, ErrMessageReused)
	default:
		return fmt.Errorf("member %s: %w: %w", id, ErrUnsettled, err)
	}
}

// hello asks a member by which ring it decides.
func (p *peers) hello(ctx context.Context, id string) (*peerv1.Callee, error) {
	client, caller, err := p.client(id)
	if err != nil {
		return nil, err
	}
	response, err := client.Hello(ctx, connect.NewRequest(&peerv1.HelloRequest{Caller: caller}))
	if err != nil {
		return nil, err
	}
	return response.Msg.Callee, nil
}

func (m *message) proto() *peerv1.Message {
	out := &peerv1.Message{Id: m.id}
	if m.Binary {
		out.Payload = &peerv1.Message_Data{Data: m.Data}
	} else {
		out.Payload = &peerv1.Message_Text{Text: string(m.Data)}
	}
	return out
}

func messageFromPeer(m *peerv1.Message, except string) (*message, error) {
	if m.GetId() == "" || len(m.GetId()) > maxMessageID {
		return nil, invalid("message id of %d bytes; want 1 to %d", len(m.GetId()), maxMessageID)
	}
	out := &message{id: m.GetId(), except: except}
	if data, ok := m.GetPayload().(*peerv1.Message_Data); ok {
		out.Message = Message{Data: data.Data, Binary: true}
	} else {
		out.Message = Message{Data: []byte(m.GetText())}
	}
	return out, nil
}

// remaining is what is left of ctx's time; it travels as a duration since clocks differ.
func remaining(ctx context.Context) uint32 {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return uint32(max(time.Until(deadline).Milliseconds(), 1))
}

// withTimeout bounds the work for a caller by what it asked for, in milliseconds (0 is the default, maxTimeout the most), and by
// what its own deadline, which is ctx's, leaves. A little is kept back for the answer's way: that something is uncertain, and how
// many were reached, must be with the caller before its patience ends.
func withTimeout(ctx context.Context, milliseconds uint32) (context.Context, context.CancelFunc) {
	timeout := time.Duration(milliseconds) * time.Millisecond
	if timeout == 0 {
		timeout = pushv1.DefaultTimeout
	}
	timeout = min(timeout, maxTimeout)
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(deadline))
	}
	return context.WithTimeout(ctx, timeout-min(timeout/10, answerTime))
}

func (p *peers) broadcast(ctx context.Context, id string, m *message) (uint32, error) {
	client, caller, err := p.client(id)
	if err != nil {
		return 0, err
	}
	request := &peerv1.BroadcastRequest{Caller: caller, Message: m.proto(), RemainingMs: remaining(ctx)}
	response, err := client.Broadcast(ctx, connect.NewRequest(request))
	if err != nil {
		return 0, p.explain(id, err)
	}
	return response.Msg.Sessions, nil
}

func (p *peers) presence(ctx context.Context, id string, users []string) ([]*pushv1.UserPresence, error) {
	client, caller, err := p.client(id)
	if err != nil {
		return nil, err
	}
	request := &peerv1.PresenceRequest{Caller: caller, Users: users, RemainingMs: remaining(ctx)}
	response, err := client.Presence(ctx, connect.NewRequest(request))
	if err != nil {
		return nil, p.explain(id, err)
	}
	return response.Msg.Users, nil
}

func (p *peers) disconnect(ctx context.Context, id, user string, sessions []string, code uint32, reason string) (int, error) {
	client, caller, err := p.client(id)
	if err != nil {
		return 0, err
	}
	request := &peerv1.DisconnectRequest{
		Caller: caller, User: user, Sessions: sessions, Code: code, Reason: reason, RemainingMs: remaining(ctx),
	}
	response, err := client.Disconnect(ctx, connect.NewRequest(request))
	if err != nil {
		return 0, p.explain(id, err)
	}
	return int(response.Msg.Sessions), nil
}
