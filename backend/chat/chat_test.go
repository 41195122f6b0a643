package chat_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"go.uber.org/goleak"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/backend/chat"
	"github.com/selvedge/selvedge/internal/discovery"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs the chat as a service's only member.
func start() (b *backend.Backend, stop func() error, err error) {
	b, err = chat.New(backend.Config{
		ID: "b1", Listen: "127.0.0.1:0", RPC: "127.0.0.1:0", Membership: backend.Membership{Memory: discovery.NewMemory()},
	})
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	<-b.Ready()
	return b, func() error { cancel(); return <-ended }, nil
}

// user is one session of the chat, connected as an edge would.
type user struct{ rw io.ReadWriteCloser }

func connect(b *backend.Backend, name, query string) (user, error) {
	dialer := ws.Dialer{Timeout: 5 * time.Second, Header: ws.HandshakeHeaderHTTP(http.Header{backend.UserHeader: {name}})}
	conn, early, _, err := dialer.Dial(context.Background(), "ws://"+b.Addr().String()+"/ws"+query)
	if err != nil {
		return user{}, err
	}
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if early != nil {
		return user{struct {
			io.Reader
			io.WriteCloser
		}{early, conn}}, nil
	}
	return user{conn}, nil
}

func (u user) say(text string) error { return wsutil.WriteClientText(u.rw, []byte(text)) }

func (u user) hear() string {
	text, err := wsutil.ReadServerText(u.rw)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Alice writes to Bob.
func Example() {
	b, stop, err := start()
	if err != nil {
		fmt.Println(err)
		return
	}
	alice, err := connect(b, "alice", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	bob, err := connect(b, "bob", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = alice.say(`{"to":"bob","text":"hi","id":"m1"}`)
	fmt.Println(bob.hear())
	fmt.Println(alice.hear())
	_ = alice.rw.Close()
	_ = bob.rw.Close()
	fmt.Println(stop())
	// Output:
	// {"from":"alice","to":"bob","text":"hi","id":"m1"}
	// {"ack":"m1","outcome":"DELIVERED","sessions":1}
	// <nil>
}

func TestChat(t *testing.T) {
	b, stop, err := start()
	if err != nil {
		t.Fatal(err)
	}
	open := func(name, query string) user {
		u, err := connect(b, name, query)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	alice, twin, bob := open("alice", "?hello=1"), open("alice", ""), open("bob", "")
	var hello struct {
		Hello struct{ User, Backend, Session string }
	}
	if err := json.Unmarshal([]byte(alice.hear()), &hello); err != nil || hello.Hello.User != "alice" || hello.Hello.Backend != "b1" || hello.Hello.Session == "" {
		t.Errorf("hello: %+v, %v", hello, err)
	}
	for _, test := range []struct {
		name, says string
		bob, twin  string // "": hears nothing
		ack        string
	}{
		{"one", `{"to":"bob","text":"hi","id":"1"}`, `{"from":"alice","to":"bob","text":"hi","id":"1"}`,
			`{"from":"alice","to":"bob","text":"hi","id":"1"}`, `{"ack":"1","outcome":"DELIVERED","sessions":1}`},
		{"the same again", `{"to":"bob","text":"hi","id":"1"}`, "", "", `{"ack":"1","outcome":"DELIVERED","sessions":1}`},
		{"the same id, another text", `{"to":"bob","text":"ho","id":"1"}`, "", "", `"error":`},
		{"several", `{"to":["bob","nobody"],"text":"all","id":"2"}`, `{"from":"alice","to":["bob","nobody"],"text":"all","id":"2"}`,
			`{"from":"alice","to":["bob","nobody"],"text":"all","id":"2"}`,
			`{"ack":"2","outcome":"DELIVERED","sessions":1,"results":[{"user":"bob","outcome":"DELIVERED","sessions":1},{"user":"nobody","outcome":"OFFLINE","sessions":0}]}`},
		{"nobody", `{"to":"nobody","text":"hi","id":"3"}`, "", `{"from":"alice","to":"nobody","text":"hi","id":"3"}`,
			`{"ack":"3","outcome":"OFFLINE","sessions":0}`},
		{"oneself: the other device, not this one", `{"to":"alice","text":"note","id":"4"}`, "",
			`{"from":"alice","to":"alice","text":"note","id":"4"}`, `{"ack":"4","outcome":"DELIVERED","sessions":1}`},
		{"no JSON", `hi`, "", "", `"error":"want`},
		{"no receiver", `{"text":"hi"}`, "", "", `name a user`},
		{"an impossible receiver", `{"to":"` + strings.Repeat("x", 300) + `","text":"hi","id":"5"}`, "",
			`{"from":"alice","to":"` + strings.Repeat("x", 300) + `","text":"hi","id":"5"}`, `"error":`},
	} {
		if err := alice.say(test.says); err != nil {
			t.Fatal(err)
		}
		if got := alice.hear(); !strings.Contains(got, test.ack) {
			t.Errorf("%s: acknowledged with %s; want %s", test.name, got, test.ack)
		}
		if test.bob != "" {
			if got := bob.hear(); got != test.bob {
				t.Errorf("%s: bob hears %s; want %s", test.name, got, test.bob)
			}
		}
		if test.twin != "" {
			if got := twin.hear(); got != test.twin {
				t.Errorf("%s: the other device hears %s; want %s", test.name, got, test.twin)
			}
		}
	}
	// Whoever was to hear nothing in between hears this next.
	if err := alice.say(`{"to":["bob","alice"],"text":"last","id":"6"}`); err != nil {
		t.Fatal(err)
	}
	for name, u := range map[string]user{"bob": bob, "the other device": twin} {
		if got := u.hear(); !strings.Contains(got, `"last"`) {
			t.Errorf("%s heard %s", name, got)
		}
	}
	for _, u := range []user{alice, twin, bob} {
		_ = u.rw.Close()
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
