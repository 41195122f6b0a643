package backend

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/internal/homing"
	"github.com/selvedge/selvedge/internal/peerv1"
)

// peerService is what the other members reach. It is open to whoever has the peer token.
type peerService struct{ b *Backend }

// envelope checks that the request is meant for this process, and answers who it is.
func (p peerService) envelope(c *peerv1.Caller) (*peerv1.Callee, error) {
	if c.GetCallee() != p.b.cfg.ID {
		return nil, connect.NewError(connect.CodeFailedPrecondition,
			fmt.Errorf("this is member %q, not %q: the caller's address book is out of date", p.b.cfg.ID, c.GetCallee()))
	}
	return &peerv1.Callee{
		Member:      p.b.cfg.ID,
		Incarnation: p.b.incarnation,
		RingDigest:  p.b.view.Snapshot().Ring.Digest(),
	}, nil
}

// Hello comes from a member that holds sessions whose home it believes this one to be: see homingView.
func (p peerService) Hello(_ context.Context, r *connect.Request[peerv1.HelloRequest]) (*connect.Response[peerv1.HelloResponse], error) {
	callee, err := p.envelope(r.Msg.Caller)
	if err != nil {
		return nil, err
	}
	p.b.greetedAt.Store(time.Now().UnixNano())
	return connect.NewResponse(&peerv1.HelloResponse{Callee: callee}), nil
}

func (p peerService) Deliver(ctx context.Context, r *connect.Request[peerv1.DeliverRequest]) (*connect.Response[peerv1.DeliverResponse], error) {
	callee, err := p.envelope(r.Msg.Caller)
	if err != nil {
		return nil, err
	}
	if err := checkUser(r.Msg.User); err != nil {
		return nil, err
	}
	ctx, cancel := withTimeout(ctx, r.Msg.RemainingMs)
	defer cancel()
	// A hop count below HomeHop is for senders: taken at its word it could send a push round in circles.
	hops := max(int(r.Msg.Hops), homing.HomeHop)
	m, err := messageFromPeer(r.Msg.Message, r.Msg.ExceptSession)
	if err != nil {
		return nil, err
	}
	took, err := p.b.deliver(ctx, r.Msg.User, m, hops)
	if err != nil {
		return nil, p.b.rpcError(alsoReached(err, len(took)))
	}
	return connect.NewResponse(&peerv1.DeliverResponse{Callee: callee, Sessions: took}), nil
}

func (p peerService) Broadcast(ctx context.Context, r *connect.Request[peerv1.BroadcastRequest]) (*connect.Response[peerv1.BroadcastResponse], error) {
	callee, err := p.envelope(r.Msg.Caller)
	if err != nil {
		return nil, err
	}
	ctx, cancel := withTimeout(ctx, r.Msg.RemainingMs)
	defer cancel()
	m, err := messageFromPeer(r.Msg.Message, "")
	if err != nil {
		return nil, err
	}
	n, err := p.b.broadcastLocal(ctx, m)
	if err != nil {
		return nil, p.b.rpcError(err)
	}
	return connect.NewResponse(&peerv1.BroadcastResponse{Callee: callee, Sessions: uint32(n)}), nil
}

func (p peerService) Presence(_ context.Context, r *connect.Request[peerv1.PresenceRequest]) (*connect.Response[peerv1.PresenceResponse], error) {
	callee, err := p.envelope(r.Msg.Caller)
	if err != nil {
		return nil, err
	}
	if len(r.Msg.Users) > maxPresenceUsers {
		return nil, invalid("%d users; want at most %d in one call", len(r.Msg.Users), maxPresenceUsers)
	}
	return connect.NewResponse(&peerv1.PresenceResponse{Callee: callee, Users: p.b.presenceLocal(r.Msg.Users)}), nil
}

func (p peerService) Disconnect(_ context.Context, r *connect.Request[peerv1.DisconnectRequest]) (*connect.Response[peerv1.DisconnectResponse], error) {
	callee, err := p.envelope(r.Msg.Caller)
	if err != nil {
		return nil, err
	}
	if err := checkClose(r.Msg.Code, r.Msg.Reason); err != nil {
		return nil, err
	}
	n := p.b.closeSessions(r.Msg.User, r.Msg.Sessions, r.Msg.Code, r.Msg.Reason)
	return connect.NewResponse(&peerv1.DisconnectResponse{Callee: callee, Sessions: uint32(n)}), nil
}
