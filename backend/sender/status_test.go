package sender_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/backend/sender"
	"github.com/selvedge/selvedge/internal/discovery"
)

// told is a member that tells who was asked, and for whom.
type told struct {
	pushv1.UnimplementedRingServiceHandler
	id string
}

func (m told) Status(_ context.Context, r *connect.Request[pushv1.StatusRequest]) (*connect.Response[pushv1.StatusResponse], error) {
	return connect.NewResponse(&pushv1.StatusResponse{Member: m.id + " for " + r.Msg.Member}), nil
}

func (m told) Drain(_ context.Context, r *connect.Request[pushv1.DrainRequest]) (*connect.Response[pushv1.DrainResponse], error) {
	if r.Msg.Member != m.id {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("not me"))
	}
	return connect.NewResponse(&pushv1.DrainResponse{Sessions: 7}), nil
}

// A question about a member goes to that member, directly and by way of an edge; errors keep their code.
func TestStatusAndDrain(t *testing.T) {
	registry := discovery.NewMemory()
	for _, id := range []string{"b1", "b2"} {
		mux := http.NewServeMux()
		mux.Handle(pushv1.NewRingServiceHandler(told{id: id}))
		server := httptest.NewUnstartedServer(mux)
		server.Config.Protocols = new(http.Protocols)
		server.Config.Protocols.SetUnencryptedHTTP2(true)
		server.Start()
		t.Cleanup(server.Close)
		addr := server.Listener.Addr().String()
		registry.Put("default", discovery.Member{ID: id, Addr: addr, RPCAddr: addr, Weight: 1})
	}
	registry.Put("default", discovery.Member{ID: "foreign", Addr: "127.0.0.1:1", Weight: 1})
	direct := newSender(t, sender.Config{Membership: sender.Membership{Memory: registry}})
	edge := httptest.NewUnstartedServer(direct.Handler())
	edge.Config.Protocols = new(http.Protocols)
	edge.Config.Protocols.SetUnencryptedHTTP2(true)
	edge.Start()
	t.Cleanup(edge.Close)
	for name, s := range map[string]*sender.Sender{"direct": direct, "by an edge": newSender(t, sender.Config{Via: edge.URL})} {
		t.Run(name, func(t *testing.T) {
			status, err := s.Status(context.Background(), &pushv1.StatusRequest{Member: "b2"})
			if err != nil || status.Member != "b2 for b2" {
				t.Errorf("status of b2: %v, %v", status, err)
			}
			if n, err := s.Drain(context.Background(), "b1"); n != 7 || err != nil {
				t.Errorf("drain of b1: %d, %v", n, err)
			}
			for id, want := range map[string]connect.Code{"b9": connect.CodeNotFound, "": connect.CodeInvalidArgument, "foreign": connect.CodeUnimplemented} {
				if _, err := s.Drain(context.Background(), id); connect.CodeOf(err) != want {
					t.Errorf("drain of %q: %v, want %v", id, err, want)
				}
			}
		})
	}
}
