package backend

import (
	"errors"
	"fmt"
	"net/netip"

	"go.uber.org/zap"

	"github.com/selvedge/selvedge/internal/config"
)

// FromSettings makes a Config of what file, environment and flags say; the handlers are still to be set. It opens nothing but token
// files.
func FromSettings(s *config.Settings, log *zap.Logger) (Config, error) {
	membership, err := s.Membership()
	if err != nil {
		return Config{}, err
	}
	b := s.Backend
	if !s.Admin.TLS.Empty() {
		return Config{}, s.Wrong("admin.tls", "only an edge's admin listener speaks TLS; leave this out for a backend, and listen on loopback")
	}
	cfg := Config{
		ID: b.ID, Service: b.Service, Listen: b.Listen, RPC: b.RPC.Addr, Admin: s.Admin.Addr, Advertise: b.Advertise, Weight: b.Weight,
		EdgeSecretFile: b.EdgeSecretFile, PublicURL: b.PublicURL,
		Membership: membership, MessageBytes: b.MessageBytes, QueueBytes: b.QueueBytes, OnMove: OnMove(b.OnMove),
		OnFull: OnFull(b.OnFull), Limits: Limits(b.Limits), Compress: b.Compress, PingEvery: b.PingEvery, PongTimeout: b.PongTimeout,
		Move:            Pace{Spread: b.Move.Spread, MaxPerSecond: b.Move.MaxPerSecond, Grace: b.Move.Grace},
		DistrustRefused: b.RPC.TrustRefused != nil && !*b.RPC.TrustRefused,
		DrainTimeout:    s.DrainTimeout, StateDir: s.StateDir, Logger: log,
	}
	if !b.RPC.TLS.Empty() {
		cfg.RPCTLS = (*RPCTLS)(b.RPC.TLS)
	}
	var errs [4]error
	cfg.RPCToken, errs[0] = s.Token("backend.rpc.token_file", b.RPC.TokenFile)
	cfg.PeerToken, errs[1] = s.Token("backend.rpc.peer_token_file", b.RPC.PeerTokenFile)
	cfg.AdminToken, errs[2] = s.Token("admin.token_file", s.Admin.TokenFile)
	for i, text := range b.TrustedEdges {
		network, err := netip.ParsePrefix(text)
		if addr, addrErr := netip.ParseAddr(text); addrErr == nil {
			network, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			errs[3] = s.Wrong(fmt.Sprintf("backend.trusted_edges[%d]", i), text+": want an address or a network like 10.0.0.0/8")
		}
		cfg.TrustedEdges = append(cfg.TrustedEdges, network)
	}
	return cfg, errors.Join(errs[:]...)
}
