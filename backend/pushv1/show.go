package pushv1

import "github.com/selvedge/selvedge/internal/discovery"

// Show is a snapshot as the ring service tells it.
func Show(s *discovery.Snapshot) *ShowResponse {
	out := &ShowResponse{Service: s.Service, Digest: s.Ring.Digest()}
	for _, m := range s.Members {
		out.Members = append(out.Members, &Member{
			Id: m.ID, Addr: m.Addr, Rpc: m.RPCAddr, Weight: uint32(m.Weight),
			State: m.State.String(), Health: m.Health.String(), InRing: m.InRing(),
		})
	}
	return out
}
