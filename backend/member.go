package backend

import (
	"context"
	"net"

	"github.com/selvedge/selvedge/internal/discovery"
)

// announceState makes this process's state known, or the newest one where several come at once. home.mu orders its calls.
func (b *Backend) announceState(state discovery.State, incarnation uint64) {
	select {
	case <-b.self: // not announced yet, and out of date
	default:
	}
	b.self <- discovery.Member{
		ID:          b.cfg.ID,
		Incarnation: incarnation,
		State:       state,
		Addr:        b.advertised(b.addr, true),
		RPCAddr:     b.advertised(b.rpcAddr, false),
		PublicURL:   b.cfg.PublicURL,
		Weight:      b.cfg.Weight,
	}
}

// advertised is the address under which others reach a listener. A listener on all addresses has no host of its own: where
// the registry can fill in the node's, it is left out.
func (b *Backend) advertised(addr net.Addr, registryFillsHost bool) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	switch {
	case b.cfg.Advertise != "":
		host = b.cfg.Advertise
	case isWildcard(host) && registryFillsHost && b.cfg.Membership.Consul != nil:
		host = ""
	case isWildcard(host):
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// announce makes the newest member from self known until ctx ends. In a list or a file this member stands already, or does not.
func (b *Backend) announce(ctx context.Context, self <-chan discovery.Member) error {
	announcer, ok := b.source.(discovery.Announcer)
	if !ok {
		return nil
	}
	err := announcer.Announce(ctx, b.cfg.Service, self)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// membersChanged runs on the view's goroutine at every change.
func (b *Backend) membersChanged(_, snapshot *discovery.Snapshot) { b.home.snapshotChanged(snapshot) }

func (b *Backend) wakeMover() {
	select {
	case b.nudge <- struct{}{}:
	default: // it is awake already
	}
}
