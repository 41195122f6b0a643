package sender

import (
	"context"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
)

// Ring returns the members of the service as this sender sees them or, with Config.Via, as the process there does.
func (s *Sender) Ring(ctx context.Context) (*pushv1.ShowResponse, error) {
	if s.via != nil {
		response, err := s.via.ring.Show(ctx, connect.NewRequest(&pushv1.ShowRequest{}))
		if err != nil {
			return nil, err
		}
		return response.Msg, nil
	}
	snapshot, err := s.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	return pushv1.Show(snapshot), nil
}
