package backend

import (
	"context"
	"net"
	"time"

	"go.uber.org/zap"

	"github.com/selvedge/selvedge/internal/discovery"
)

// member is what this process says of itself.
func (b *Backend) member(state discovery.State) discovery.Member {
	return discovery.Member{
		ID:          b.cfg.ID,
		Incarnation: b.incarnation,
		State:       state,
		Addr:        b.advertised(b.addr, true),
		RPCAddr:     b.advertised(b.rpcAddr, false),
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
func (b *Backend) membersChanged(_, snapshot *discovery.Snapshot) {
	b.changedAt.Store(time.Now().UnixNano())
	inUse := make(map[string]bool)
	for _, m := range snapshot.Members {
		inUse[m.RPCAddr] = true
	}
	b.peers.forget(inUse)
	if self, known := snapshot.Member(b.cfg.ID); known && self.Incarnation > b.incarnation {
		b.log.Error("another process has taken this member's id; give each its own", zap.String("addr", self.Addr))
	}
	b.wakeMover()
}

func (b *Backend) wakeMover() {
	select {
	case b.nudge <- struct{}{}:
	default: // it is awake already
	}
}
