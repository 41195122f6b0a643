package backend_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/backend/sender"
	"github.com/selvedge/selvedge/internal/testkit"
)

func TestPushReachesEverySessionOnce(t *testing.T) {
	c := newCluster(t, 3, nil)
	home := c.home("alice")
	phone, laptop := home.dial(t, "alice", "/?device=phone"), home.dial(t, "alice", "/?device=laptop")
	for i, m := range c.members { // from each member: the home, and the ones that forward
		text := fmt.Sprintf("message %d", i)
		n, err := m.Push(context.Background(), "alice", backend.Text(text))
		if n != 2 || err != nil {
			t.Fatalf("push by way of %s: %d sessions, %v; want 2", m.ID(), n, err)
		}
		phone.want(text)
		laptop.want(text)
	}
	if n, err := home.Push(context.Background(), "nobody", backend.Text("hi")); n != 0 || err != nil {
		t.Fatalf("push to nobody: %d sessions, %v", n, err)
	}
}

// A session that is not at its user's home, since the edge could not reach it, is found all the same.
func TestPushFindsSessionsAwayFromHome(t *testing.T) {
	c := newCluster(t, 3, func(cfg *backend.Config) { cfg.OnMove = backend.MoveKeep })
	away := c.elsewhere("alice")
	guest := away.dial(t, "alice", "/")
	for i, m := range c.members {
		text := fmt.Sprintf("message %d", i)
		if n, err := m.Push(context.Background(), "alice", backend.Text(text)); n != 1 || err != nil {
			t.Fatalf("push by way of %s: %d sessions, %v; want 1", m.ID(), n, err)
		}
		guest.want(text)
	}
}

func TestRepeatedMessageIDReachesNoSessionTwice(t *testing.T) {
	c := newCluster(t, 3, nil)
	home := c.home("alice")
	first := home.dial(t, "alice", "/")
	push := func(m *member, text string) (int, error) {
		return m.Push(context.Background(), "alice", backend.Text(text), backend.WithMessageID("id-1"))
	}
	for _, m := range c.members {
		if n, err := push(m, "once"); n != 1 || err != nil {
			t.Fatalf("%d sessions, %v; the repeat must say what the first said", n, err)
		}
	}
	// A session that opened since gets it: the repeat's outcome must hold for it, too.
	second := home.dial(t, "alice", "/")
	if n, err := push(home, "once"); n != 2 || err != nil {
		t.Fatalf("%d sessions, %v; want 2", n, err)
	}
	second.want("once")
	if _, err := push(home, "something else"); !errors.Is(err, backend.ErrMessageReused) {
		t.Fatalf("other payload, same id: %v; want ErrMessageReused", err)
	}
	if _, err := home.Push(context.Background(), "alice", backend.Text("after")); err != nil {
		t.Fatal(err)
	}
	first.want("once")
	first.want("after") // nothing in between
	second.want("after")
}

func TestExceptSession(t *testing.T) {
	ids := make(chan string, 2)
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.OnOpen = func(s *backend.Session, _ *http.Request) error { ids <- s.ID(); return nil }
	})
	sending := c.members[0].dial(t, "alice", "/")
	id := <-ids
	other := c.members[0].dial(t, "alice", "/")
	n, err := c.members[0].Push(context.Background(), "alice", backend.Text("to the other"), backend.ExceptSession(id))
	if n != 1 || err != nil {
		t.Fatalf("%d sessions, %v; want 1", n, err)
	}
	other.want("to the other")
	if _, err := c.members[0].Push(context.Background(), "alice", backend.Text("to both")); err != nil {
		t.Fatal(err)
	}
	sending.want("to both")
}

// A home whose process is gone holds nothing: another member answers for it, and truly.
func TestPushWhenHomeIsGone(t *testing.T) {
	c := newCluster(t, 3, nil)
	home, stand := c.home("alice"), c.elsewhere("alice")
	if err := home.stop(); err != nil {
		t.Fatal(err)
	}
	// Nobody has told the others: the registry is made to say what it said before.
	c.registry.Put("default", ghost(home))
	testkit.Eventually(t, 5*time.Second, func() bool { return stand.Owner("alice") == home.ID() }, "the ghost on the ring")
	guest := stand.dial(t, "alice", "/")
	if n, err := stand.Push(context.Background(), "alice", backend.Text("hi")); n != 1 || err != nil {
		t.Fatalf("%d sessions, %v; want 1", n, err)
	}
	guest.want("hi")
	s := newSender(t, sender.Config{Membership: sender.Membership{Memory: c.registry}})
	if r, err := s.Push(context.Background(), "alice", sender.Text("from outside")); r.Sessions != 1 || err != nil {
		t.Fatalf("sender: %+v, %v; want 1 session", r, err)
	}
	guest.want("from outside")
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

func TestSenderPushMany(t *testing.T) {
	c := newCluster(t, 3, nil)
	var users []string
	clients := make(map[string]*client)
	for i := range 50 {
		user := fmt.Sprintf("user-%d", i)
		users = append(users, user)
		if i%5 != 0 {
			clients[user] = c.home(user).dial(t, user, "/")
		}
	}
	users = append(users, "", strings.Repeat("x", 300))
	for name, cfg := range map[string]sender.Config{
		"direct": {Membership: sender.Membership{Memory: c.registry}},
		"via":    {Via: "http://" + c.members[0].RPCAddr().String()},
	} {
		t.Run(name, func(t *testing.T) {
			results, err := newSender(t, cfg).PushMany(context.Background(), users, sender.Text("to many, "+name))
			if err != nil || len(results) != len(users) {
				t.Fatalf("%d results, %v; want %d", len(results), err, len(users))
			}
			for i, r := range results {
				want := 0
				if clients[users[i]] != nil {
					want = 1
				}
				bad := i >= 50
				if r.User != users[i] || r.Sessions != want || (r.Err != nil) != bad {
					t.Errorf("result %d: %+v; want user %q, %d sessions, error: %t", i, r, users[i], want, bad)
				}
				if bad && connect.CodeOf(r.Err) != connect.CodeInvalidArgument {
					t.Errorf("result %d: code %v; want invalid_argument", i, connect.CodeOf(r.Err))
				}
			}
			for _, client := range clients {
				client.want("to many, " + name)
			}
		})
	}
}

func TestBroadcastPresenceDisconnect(t *testing.T) {
	c := newCluster(t, 3, nil)
	phone, laptop := c.home("alice").dial(t, "alice", "/?device=phone"), c.home("alice").dial(t, "alice", "/?device=laptop")
	bob := c.home("bob").dial(t, "bob", "/")
	s := newSender(t, sender.Config{Membership: sender.Membership{Memory: c.registry}})
	ctx := context.Background()

	n, unanswered, err := s.Broadcast(ctx, sender.Text("all"))
	if n != 3 || len(unanswered) > 0 || err != nil {
		t.Fatalf("broadcast: %d sessions, unanswered %v, %v; want 3", n, unanswered, err)
	}
	for _, client := range []*client{phone, laptop, bob} {
		client.want("all")
	}

	presence, err := s.Presence(ctx, "alice", "nobody", "bob")
	if err != nil || len(presence) != 3 {
		t.Fatalf("presence: %v, %v", presence, err)
	}
	devices := make(map[string]string)
	for _, session := range presence[0].Sessions {
		devices[session.Device] = session.Backend
	}
	if home := c.home("alice").ID(); devices["phone"] != home || devices["laptop"] != home || len(presence[0].Sessions) != 2 {
		t.Errorf("alice: %v; want a phone and a laptop at %s", presence[0], home)
	}
	if len(presence[1].Sessions) != 0 || len(presence[2].Sessions) != 1 || presence[0].Error != nil {
		t.Errorf("presence: %v", presence)
	}

	if n, err := s.Disconnect(ctx, "alice", "phone", 0, ""); n != 1 || err != nil {
		t.Fatalf("disconnect: %d, %v; want 1", n, err)
	}
	phone.wantClose(1008)
	if n, err := s.Disconnect(ctx, "alice", "", 4001, "bye"); n != 1 || err != nil {
		t.Fatalf("disconnect: %d, %v; want 1", n, err)
	}
	laptop.wantClose(4001)
	if _, err := s.Disconnect(ctx, "alice", "", 1006, ""); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("code 1006: %v; want invalid_argument", err)
	}
}

// A broadcast's id, too, names one message.
func TestBroadcastRepeatsAndReuse(t *testing.T) {
	c := newCluster(t, 2, func(cfg *backend.Config) { cfg.OnMove = backend.MoveKeep })
	alice, bob := c.members[0].dial(t, "alice", "/"), c.members[1].dial(t, "bob", "/")
	s := newSender(t, sender.Config{Membership: sender.Membership{Memory: c.registry}})
	once := sender.Message{Data: []byte("once"), ID: "m1"}
	for range 3 {
		if n, _, err := s.Broadcast(context.Background(), once); n != 2 || err != nil {
			t.Fatalf("%d sessions, %v; a repeat must say what the first said", n, err)
		}
	}
	other := sender.Message{Data: []byte("other"), ID: "m1"}
	if _, _, err := s.Broadcast(context.Background(), other); connect.CodeOf(err) != connect.CodeAlreadyExists {
		t.Errorf("other payload, same id: %v; want already_exists", err)
	}
	if _, _, err := s.Broadcast(context.Background(), sender.Text("after")); err != nil {
		t.Fatal(err)
	}
	for _, client := range []*client{alice, bob} {
		client.want("once")
		client.want("after")
	}
}

func TestPushRefusesMisuse(t *testing.T) {
	c := newCluster(t, 1, nil)
	for name, push := range map[string]func() (int, error){
		"no user":      func() (int, error) { return c.members[0].Push(context.Background(), "", backend.Text("x")) },
		"text, not so": func() (int, error) { return c.members[0].Push(context.Background(), "a", backend.Text("\xff")) },
		"an id of 1 KB": func() (int, error) {
			return c.members[0].Push(context.Background(), "a", backend.Text("x"), backend.WithMessageID(strings.Repeat("x", 1024)))
		},
	} {
		if _, err := push(); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: %v; want invalid_argument", name, err)
		}
	}
}

// Whatever speaks HTTP can push.
func TestPushByJSON(t *testing.T) {
	c := newCluster(t, 2, func(cfg *backend.Config) { cfg.RPCToken = "s3cret" })
	alice := c.home("alice").dial(t, "alice", "/")
	post := func(token, body string) (int, string) {
		url := "http://" + c.elsewhere("alice").RPCAddr().String() + "/selvedge.push.v1.PushService/Push"
		request, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Authorization", "Bearer "+token)
		request.Close = true
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(text)
	}
	for _, test := range []struct {
		token, body string
		status      int
		contains    []string
	}{
		{"s3cret", `{"user":"alice","text":"hi","message_id":"m1"}`, 200, []string{`"outcome":"DELIVERED"`, `"sessions":1`, `"message_id":"m1"`}},
		{"s3cret", `{"user":"bob","data":"AAEC"}`, 200, []string{`"outcome":"OFFLINE"`}},
		{"s3cret", `{"user":"alice"}`, 400, []string{`"code":"invalid_argument"`, "text or data"}},
		{"s3cret", `{"text":"hi"}`, 400, []string{`"code":"invalid_argument"`, "user id"}},
		{"s3cret", `{"user":"alice","text":"other","message_id":"m1"}`, 409, []string{`"code":"already_exists"`, "MESSAGE_REUSED"}},
		{"wrong", `{"user":"alice","text":"hi"}`, 401, []string{`"code":"unauthenticated"`}},
	} {
		status, text := post(test.token, test.body)
		if status != test.status {
			t.Errorf("%s: status %d, want %d: %s", test.body, status, test.status, text)
		}
		for _, part := range test.contains {
			if !strings.Contains(strings.ReplaceAll(text, " ", ""), strings.ReplaceAll(part, " ", "")) {
				t.Errorf("%s: %s; want %s in it", test.body, text, part)
			}
		}
	}
	alice.want("hi")
}

// Senders have no business with the peer service, whatever their token.
func TestPeerServiceHasItsOwnCredential(t *testing.T) {
	c := newCluster(t, 2, func(cfg *backend.Config) { cfg.RPCToken, cfg.PeerToken = "for senders", "for peers" })
	request, err := http.NewRequest(http.MethodPost,
		"http://"+c.members[0].RPCAddr().String()+"/selvedge.peer.v1.PeerService/Talk", strings.NewReader(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]int{"for senders": 401, "": 401, "for peers": 505} {
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Authorization", "Bearer "+token)
		request.Body, _ = request.GetBody()
		request.Close = true
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("token %q: %d, want %d", token, response.StatusCode, want)
		}
	}
	alice := c.home("alice").dial(t, "alice", "/")
	if n, err := c.elsewhere("alice").Push(context.Background(), "alice", backend.Text("hi")); n != 1 || err != nil {
		t.Fatalf("forwarding between members: %d, %v", n, err)
	}
	alice.want("hi")
}

func TestPushStreamKeepsOrder(t *testing.T) {
	c := newCluster(t, 2, nil)
	alice := c.home("alice").dial(t, "alice", "/")
	client := pushv1.NewPushServiceClient(h2c(t), "http://"+c.elsewhere("alice").RPCAddr().String(), connect.WithGRPC())
	stream := client.PushStream(context.Background())
	const pushes = 50
	for i := range pushes {
		request := &pushv1.PushRequest{User: "alice", Payload: &pushv1.PushRequest_Text{Text: fmt.Sprint(i)}}
		if err := stream.Send(request); err != nil {
			t.Fatal(err)
		}
	}
	if err := stream.CloseRequest(); err != nil {
		t.Fatal(err)
	}
	for i := range pushes {
		result, err := stream.Receive()
		if err != nil || result.Sessions != 1 || result.Outcome != pushv1.Outcome_DELIVERED {
			t.Fatalf("result %d: %v, %v", i, result, err)
		}
		alice.want(fmt.Sprint(i))
	}
	if _, err := stream.Receive(); !errors.Is(err, io.EOF) {
		t.Fatalf("behind the last result: %v; want EOF", err)
	}
	_ = stream.CloseResponse()
}

func h2c(t *testing.T) *http.Client {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}
