package sender_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/backend/sender"
)

// short answers every PushMany with one result, whatever it was asked.
type short struct {
	pushv1.UnimplementedPushServiceHandler
}

func (short) PushMany(context.Context, *connect.Request[pushv1.PushManyRequest]) (*connect.Response[pushv1.PushManyResponse], error) {
	return connect.NewResponse(&pushv1.PushManyResponse{Results: []*pushv1.PushResult{{User: "alice"}}}), nil
}

func serveMany(t *testing.T) (url string) {
	mux := http.NewServeMux()
	mux.Handle(pushv1.NewPushServiceHandler(short{}))
	server := httptest.NewUnstartedServer(mux)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	return server.URL
}

// What an edge's admin port says is what the member said: outcome, code, reason, sessions and message.
func TestHandlerPassesOn(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer func(int) (*pushv1.PushResponse, error)
		code   connect.Code
		reason pushv1.Reason
	}{
		{"delivered", delivered, 0, 0},
		{"reused", fails(connect.CodeAlreadyExists, pushv1.Reason_MESSAGE_REUSED), connect.CodeAlreadyExists, pushv1.Reason_MESSAGE_REUSED},
		{"unsettled", fails(connect.CodeAborted, pushv1.Reason_UNSETTLED), connect.CodeAborted, pushv1.Reason_UNSETTLED},
		{"away", fails(connect.CodeUnavailable, pushv1.Reason_HOME_AWAY), connect.CodeUnavailable, pushv1.Reason_HOME_AWAY},
		{"overloaded", fails(connect.CodeResourceExhausted, pushv1.Reason_OVERLOADED), connect.CodeResourceExhausted, pushv1.Reason_OVERLOADED},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSender(t, sender.Config{Via: serve(t, "b1", test.answer).url})
			edge := httptest.NewServer(s.Handler())
			defer edge.Close()
			web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			client := pushv1.NewPushServiceClient(web, edge.URL)
			response, err := client.Push(context.Background(), connect.NewRequest(&pushv1.PushRequest{
				User: "alice", Payload: &pushv1.PushRequest_Text{Text: "hi"}, MessageId: "m1", TimeoutMs: 200,
			}))
			if test.code == 0 {
				if err != nil || response.Msg.Outcome != pushv1.Outcome_DELIVERED || response.Msg.Sessions != 1 || response.Msg.MessageId != "m1" {
					t.Fatalf("%v, %v", response, err)
				}
				return
			}
			detail := pushv1.DetailOf(err)
			if connect.CodeOf(err) != test.code || detail.GetReason() != test.reason || detail.GetSessions() != 2 || detail.GetMember() != "b7" {
				t.Errorf("%v, %v", err, detail)
			}
		})
	}
}

// A caller whose patience ends learns what is known, not that time ran out.
func TestHandlerAnswersInTime(t *testing.T) {
	s := newSender(t, sender.Config{Via: serve(t, "b1", fails(connect.CodeAborted, pushv1.Reason_UNSETTLED)).url})
	edge := httptest.NewServer(s.Handler())
	defer edge.Close()
	web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	_, err := pushv1.NewPushServiceClient(web, edge.URL).Push(ctx, connect.NewRequest(&pushv1.PushRequest{
		User: "alice", Payload: &pushv1.PushRequest_Text{Text: "hi"},
	}))
	if connect.CodeOf(err) != connect.CodeAborted || pushv1.DetailOf(err).GetSessions() != 2 {
		t.Errorf("%v, %v; want that it is unsettled, with 2 reached", err, pushv1.DetailOf(err))
	}
}
