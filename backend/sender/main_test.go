package sender_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/backend/sender"
	"github.com/selvedge/selvedge/internal/discovery"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a member that answers as the test says, and remembers what it was asked.
type fake struct {
	pushv1.UnimplementedPushServiceHandler
	id     string
	url    string
	answer func(try int) (*pushv1.PushResponse, error)

	mu  sync.Mutex
	ids []string // message ids, in the order asked
}

func (f *fake) Push(_ context.Context, r *connect.Request[pushv1.PushRequest]) (*connect.Response[pushv1.PushResponse], error) {
	f.mu.Lock()
	f.ids = append(f.ids, r.Msg.MessageId)
	try := len(f.ids)
	f.mu.Unlock()
	response, err := f.answer(try)
	if err != nil {
		return nil, err
	}
	response.MessageId = r.Msg.MessageId
	return connect.NewResponse(response), nil
}

func (f *fake) asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.ids...)
}

func delivered(int) (*pushv1.PushResponse, error) {
	return &pushv1.PushResponse{Outcome: pushv1.Outcome_DELIVERED, Sessions: 1}, nil
}

func fails(code connect.Code, reason pushv1.Reason) func(int) (*pushv1.PushResponse, error) {
	return func(int) (*pushv1.PushResponse, error) {
		return nil, pushv1.NewError(code, &pushv1.ErrorDetail{Reason: reason, Sessions: 2, Member: "b7"}, fmt.Errorf("as the test says"))
	}
}

func serve(t *testing.T, id string, answer func(int) (*pushv1.PushResponse, error)) *fake {
	t.Helper()
	f := &fake{id: id, answer: answer}
	mux := http.NewServeMux()
	mux.Handle(pushv1.NewPushServiceHandler(f))
	server := httptest.NewUnstartedServer(mux)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	f.url = server.URL
	return f
}

// ring registers members and returns the user "alice"'s candidates among them, best first.
func ring(t *testing.T, fakes ...*fake) (*discovery.Memory, []*fake) {
	t.Helper()
	registry := discovery.NewMemory()
	byID := make(map[string]*fake)
	for _, f := range fakes {
		addr := f.url[len("http://"):]
		registry.Put("default", discovery.Member{ID: f.id, Incarnation: 1, Addr: addr, RPCAddr: addr, Weight: 1})
		byID[f.id] = f
	}
	s := newSender(t, sender.Config{Membership: sender.Membership{Memory: registry}})
	home, ok := s.Owner(context.Background(), "alice")
	if !ok {
		t.Fatal("no owner")
	}
	order := []*fake{byID[home.ID]}
	for _, f := range fakes {
		if f != order[0] {
			order = append(order, f)
		}
	}
	return registry, order
}

func newSender(t *testing.T, cfg sender.Config) *sender.Sender {
	t.Helper()
	s, err := sender.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}
