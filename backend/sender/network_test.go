package sender_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/backend/backendtest"
	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/backend/sender"
	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/rpc"
)

// serveRPC serves handler as a backend's RPC port does.
func serveRPC(t *testing.T, handler pushv1.PushServiceHandler) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(pushv1.NewPushServiceHandler(handler))
	server := rpc.Server(mux)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ln) }()
	t.Cleanup(func() { _ = server.Close(); <-ended })
	return ln.Addr().String()
}

// homeOf returns a user whose home is that member.
func homeOf(t *testing.T, s *sender.Sender, id string) (user string) {
	t.Helper()
	for c := 'a'; c <= 'z'; c++ {
		for d := 'a'; d <= 'z'; d++ {
			user = string([]rune{c, d})
			if m, ok := s.Owner(context.Background(), user); ok && m.ID == id {
				return user
			}
		}
	}
	t.Fatalf("nobody's home is %s", id)
	return ""
}

func put(registry *discovery.Memory, id, addr string) {
	registry.Put("default", discovery.Member{ID: id, Incarnation: 1, Addr: addr, RPCAddr: addr, Weight: 1})
}

// mute is a member that takes requests and never answers.
type mute struct {
	pushv1.UnimplementedPushServiceHandler
	asked atomic.Int32
}

func (m *mute) Push(ctx context.Context, _ *connect.Request[pushv1.PushRequest]) (*connect.Response[pushv1.PushResponse], error) {
	m.asked.Add(1)
	<-ctx.Done()
	time.Sleep(50 * time.Millisecond) // the caller's patience ends before ours
	return nil, ctx.Err()
}

// Over real connections: a member that hangs and one whose port is closed are passed over for the next, and are known to be away then.
func TestAwayMembersOnTheNetwork(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := free.Addr().String()
	free.Close()
	hung := &mute{}
	for name, addr := range map[string]string{"hangs": serveRPC(t, hung), "refuses": closed} {
		t.Run(name, func(t *testing.T) {
			registry := discovery.NewMemory()
			up := &fake{id: "up", answer: delivered}
			put(registry, "up", serveRPC(t, up))
			put(registry, "away", addr)
			s := newSender(t, sender.Config{Membership: sender.Membership{Memory: registry}})
			user := homeOf(t, s, "away")
			for range 3 {
				ctx, cancel := context.WithTimeout(context.Background(), 1500*time.Millisecond)
				r, err := s.Push(ctx, user, sender.Text("hi"))
				cancel()
				if err != nil || r.Sessions != 1 {
					t.Errorf("%+v, %v", r, err)
				}
			}
			if n := len(up.asked()); n != 3 {
				t.Errorf("the other was asked %d times, want 3", n)
			}
		})
	}
	if n := hung.asked.Load(); n == 0 || n == 3 {
		t.Errorf("the one that hangs was asked %d times, want once, or twice on a slow machine", n)
	}
}

// The error of a push that nobody answered says who was asked, and how often.
func TestNobodyAnswers(t *testing.T) {
	registry := discovery.NewMemory()
	put(registry, "mute", serveRPC(t, &mute{}))
	s := newSender(t, sender.Config{Membership: sender.Membership{Memory: registry}})
	ctx, cancel := context.WithTimeout(context.Background(), 400*time.Millisecond)
	defer cancel()
	_, err := s.Push(ctx, "alice", sender.Text("hi"))
	if connect.CodeOf(err) != connect.CodeDeadlineExceeded || !strings.Contains(err.Error(), "asked mute: ") || !strings.Contains(err.Error(), "tries: ") {
		t.Errorf("%v", err)
	}
}

// unsure is sure of the first user that it is asked for, and not of the others.
type unsure struct {
	pushv1.UnimplementedPushServiceHandler
	asked [][]string
}

func (u *unsure) Presence(_ context.Context, r *connect.Request[pushv1.PresenceRequest]) (*connect.Response[pushv1.PresenceResponse], error) {
	u.asked = append(u.asked, r.Msg.Users)
	response := &pushv1.PresenceResponse{}
	for i, user := range r.Msg.Users {
		p := &pushv1.UserPresence{User: user, Sessions: []*pushv1.Session{{Id: user + "-1"}}}
		if i > 0 {
			p.Error = &pushv1.Error{Code: "aborted", Reason: pushv1.Reason_UNSETTLED}
		}
		response.Users = append(response.Users, p)
	}
	return connect.NewResponse(response), nil
}

func (u *unsure) PushMany(_ context.Context, r *connect.Request[pushv1.PushManyRequest]) (*connect.Response[pushv1.PushManyResponse], error) {
	u.asked = append(u.asked, append([]string{r.Msg.MessageId}, r.Msg.Users...))
	response := &pushv1.PushManyResponse{}
	for i, user := range r.Msg.Users {
		result := &pushv1.PushResult{User: user, MessageId: r.Msg.MessageId, Sessions: 1}
		switch {
		case user == "bad":
			result.Error = &pushv1.Error{Code: "invalid_argument"}
		case i > 0 && user != "worse":
			result.Error = &pushv1.Error{Code: "aborted", Reason: pushv1.Reason_UNSETTLED}
			result.Sessions = uint32(3 - len(u.asked))
		case user == "worse":
			result.Error = &pushv1.Error{Code: "aborted", Reason: pushv1.Reason_UNSETTLED}
			result.Sessions = uint32(max(0, 4-len(u.asked)))
		}
		response.Results = append(response.Results, result)
	}
	return connect.NewResponse(response), nil
}

// Users whose answer is not complete are asked for again, the others are not.
func TestPartialAnswers(t *testing.T) {
	member := &unsure{}
	s := newSender(t, sender.Config{Via: "http://" + serveRPC(t, member)})
	users, err := s.Presence(context.Background(), "alice", "bob", "carol")
	if err != nil || len(users) != 3 {
		t.Fatalf("%v, %v", users, err)
	}
	for i, want := range []string{"alice", "bob", "carol"} {
		if u := users[i]; u.User != want || u.Error != nil || len(u.Sessions) != 1 {
			t.Errorf("%v; want %s's, complete", u, want)
		}
	}
	if n := len(member.asked); n != 3 || len(member.asked[1]) != 2 || len(member.asked[2]) != 1 {
		t.Errorf("asked %q; want what is left each time", member.asked)
	}
}

// A list that is longer than a member takes in one call is asked for in parts.
func TestPresenceOfMany(t *testing.T) {
	m := backendtest.New(t, backend.Config{})
	s := newSender(t, sender.Config{Via: "http://" + m.RPCAddr().String()})
	users := names(2500, 8)
	list, err := s.Presence(context.Background(), users...)
	if err != nil || len(list) != len(users) {
		t.Fatalf("%d of %d users, %v", len(list), len(users), err)
	}
	for i, u := range list {
		if u.User != users[i] || u.Error != nil {
			t.Fatalf("%d: %v; want %s's", i, u, users[i])
		}
	}
}

func TestPushManyRepeatsWhatIsLeft(t *testing.T) {
	member := &unsure{}
	s := newSender(t, sender.Config{Via: "http://" + serveRPC(t, member)})
	ctx, cancel := context.WithTimeout(context.Background(), 600*time.Millisecond)
	defer cancel()
	results, err := s.PushMany(ctx, []string{"alice", "bad", "bob", "worse"}, sender.Text("hi"))
	if err != nil || len(results) != 4 {
		t.Fatalf("%v, %v", results, err)
	}
	for i, want := range []struct {
		code     connect.Code
		sessions int
	}{{0, 1}, {connect.CodeInvalidArgument, 1}, {0, 1}, {connect.CodeAborted, 3}} {
		r := results[i]
		if r.Sessions != want.sessions || (r.Err == nil) != (want.code == 0) || r.Err != nil && connect.CodeOf(r.Err) != want.code {
			t.Errorf("%+v; want %v", r, want)
		}
	}
	if len(member.asked) < 3 {
		t.Fatalf("asked %q; want more tries until the deadline", member.asked)
	}
	for i, asked := range member.asked {
		if asked[0] != member.asked[0][0] || asked[0] == "" {
			t.Errorf("message ids %q; want one over all tries", member.asked)
		}
		if want := []int{5, 3, 2}[min(i, 2)]; len(asked) != want {
			t.Errorf("asked %q", member.asked)
		}
	}
}
