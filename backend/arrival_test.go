package backend_test

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/internal/testkit"
)

// oddly makes a head that says the same in a way that loops leave to net/http.
func oddly(head string) string {
	return strings.Replace(head, "\r\n\r\n", "\r\nX-Odd: a\tb\r\n\r\n", 1)
}

// Plain upgrades are taken on a loop and others by net/http; who connects gets the same answer.
func TestTwoWaysIn(t *testing.T) {
	byServer := make(chan bool, 1)
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.Subprotocols = []string{"v1"}
		cfg.Compress = true
		cfg.OnOpen = func(_ *backend.Session, r *http.Request) error {
			byServer <- r.Context().Value(http.ServerContextKey) != nil
			switch user, _ := backend.UserOf(r); user {
			case "banned":
				return &backend.Refusal{Status: http.StatusForbidden, Text: "go away", RetryAfter: time.Minute}
			case "broken":
				return errors.New("no database")
			}
			return nil
		}
	})
	for name, lines := range map[string][]string{
		"good":             nil,
		"subprotocol":      {"Sec-WebSocket-Protocol: v0, v1"},
		"compressed":       {"Sec-WebSocket-Extensions: permessage-deflate"},
		"refused":          {"X-Selvedge-User: banned"},
		"failed":           {"X-Selvedge-User: broken"},
		"no user":          {"X-Selvedge-User:-"},
		"old version":      {"Sec-WebSocket-Version: 8"},
		"bad key":          {"Sec-WebSocket-Key: c2hvcnQ="},
		"an odd extension": {"Sec-WebSocket-Extensions: permessage-deflate; ="},
	} {
		t.Run(name, func(t *testing.T) {
			var answers [2]*http.Response
			var bodies [2]string
			for i, head := range []string{handshake("alice", lines...), oddly(handshake("alice", lines...))} {
				s := c.members[0].socket(t)
				s.write([]byte(head))
				answers[i] = s.answer()
				if answers[i].StatusCode != http.StatusSwitchingProtocols {
					body, err := io.ReadAll(answers[i].Body)
					if err != nil {
						t.Error(err)
					}
					bodies[i] = string(body)
					s.want("end")
				}
				select {
				case by := <-byServer:
					if by != (i == 1) {
						t.Errorf("way %d: net/http is %v", i, by)
					}
				default: // refused before OnOpen
				}
				answers[i].Header.Del("Date")
			}
			ours, theirs := answers[0], answers[1]
			if ours.Status != theirs.Status || bodies[0] != bodies[1] || !maps.EqualFunc(ours.Header, theirs.Header, slices.Equal) {
				t.Errorf("on a loop: %s %v %q\nby net/http: %s %v %q", ours.Status, ours.Header, bodies[0], theirs.Status, theirs.Header, bodies[1])
			}
		})
	}
}

// A head comes in as many pieces as it likes.
func TestHeadInPieces(t *testing.T) {
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.OnMessage = func(s *backend.Session, m backend.Message) { _ = s.Send(m) }
	})
	for _, pieces := range []int{2, 4, 20} {
		s := c.members[0].socket(t)
		head := []byte(handshake("alice"))
		for i := range pieces {
			s.write(head[len(head)*i/pieces : len(head)*(i+1)/pieces])
		}
		if answer := s.answer(); answer.StatusCode != http.StatusSwitchingProtocols {
			t.Errorf("in %d pieces: %s", pieces, answer.Status)
		}
	}
}

// Whoever is asked learns that the client has gone.
func TestClientLeavesWhileTheServiceIsAsked(t *testing.T) {
	asked, told := make(chan struct{}), make(chan struct{})
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.OnOpen = func(_ *backend.Session, r *http.Request) error {
			close(asked)
			<-r.Context().Done()
			close(told)
			return nil
		}
	})
	m := c.members[0]
	s := m.socket(t)
	s.write([]byte(handshake("alice")))
	<-asked
	s.Close()
	select {
	case <-told:
	case <-time.After(10 * time.Second):
		t.Fatal("OnOpen waits for a client that has gone")
	}
	testkit.Eventually(t, 10*time.Second, func() bool { return m.Sessions() == 0 }, "no session to be left")
}

// A client that is refused gets the answer, whatever it has sent besides.
func TestRefusedClientThatSentMore(t *testing.T) {
	c := newCluster(t, 1, nil)
	s := c.members[0].socket(t)
	s.write(append([]byte(handshake("alice", "X-Selvedge-User:-")), make([]byte, 60_000)...))
	if answer := s.answer(); answer.StatusCode != http.StatusBadRequest {
		t.Errorf("%s, want 400", answer.Status)
	}
}

// A member that stops does not wait for those who have connected and say nothing.
func TestSilentClientsAtTheEnd(t *testing.T) {
	c := newCluster(t, 1, nil)
	m := c.members[0]
	silent, half := m.socket(t), m.socket(t)
	half.write([]byte(handshake("alice")[:20]))
	m.open(t, "bob").Close() // behind which the others have been accepted
	if err := m.stop(); err != nil {
		t.Error(err)
	}
	silent.want("end")
	half.want("end")
}
