package sender

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
)

// Bury holds a member's process dead by an operator's word: its host is gone for good, and the others still wait for its answer. Any
// other member takes the word and passes it on. It reports whether a process of that member was known.
func (s *Sender) Bury(ctx context.Context, member string) (known bool, err error) {
	if s.via != nil {
		return bury(ctx, s.via.ring, member)
	}
	snapshot, err := s.snapshot(ctx)
	if err != nil {
		return false, err
	}
	err = errors.New("no other member is there to be told")
	for _, m := range snapshot.Members {
		if m.ID == member || m.RPCAddr == "" {
			continue
		}
		if known, err = bury(ctx, s.member(m).ring, member); err == nil {
			return known, nil
		}
	}
	return false, fmt.Errorf("sender: %w", err)
}

func bury(ctx context.Context, to pushv1.RingServiceClient, member string) (known bool, err error) {
	response, err := to.Bury(ctx, connect.NewRequest(&pushv1.BuryRequest{Member: member}))
	if err != nil {
		return false, err
	}
	return response.Msg.Known, nil
}

func (v service) Bury(ctx context.Context, r *connect.Request[pushv1.BuryRequest]) (*connect.Response[pushv1.BuryResponse], error) {
	ctx, cancel := withTimeout(ctx, 0)
	defer cancel()
	known, err := v.s.Bury(ctx, r.Msg.Member)
	return respond(&pushv1.BuryResponse{Known: known}, err)
}
