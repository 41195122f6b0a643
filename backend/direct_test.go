package backend_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/internal/identity"
	"github.com/selvedge/selvedge/internal/testkit"
)

const origin = "https://chat.example.com"

// ticketFor is one for alice at b1, and /ws?device=phone, unless change says otherwise.
func ticketFor(secrets *identity.Secrets, change func(*identity.Ticket)) string {
	t := identity.Ticket{User: "alice", Backend: "b1", Target: "/ws?device=phone", Expires: time.Now().Add(identity.TicketLife), Origin: origin}
	if change != nil {
		change(&t)
	}
	return secrets.Mint("default", &t)
}

// directly is the upgrade of a client that an edge has sent to a member; it writes what it wants into its fields.
func directly(target, ticket string, lines ...string) string {
	text := handshake("-", append(lines, "X-Selvedge-User:-")...)
	if len(lines) > 0 && strings.HasPrefix(lines[0], "X-Selvedge-User") {
		text = handshake("-", lines...)
	}
	return strings.Replace(text, "GET /ws ", "GET "+target+"&selvedge_ticket="+ticket+" ", 1)
}

// Each ticket opens one session, of its user, at its member and URL; each other use has an answer of its own, which says where to get
// another where that is known.
func TestTickets(t *testing.T) {
	path, secrets := secretFile(t, "2", "1")
	_, older := secretFile(t, "1")
	_, strange := secretFile(t, "3")
	opened := make(chan string, 1)
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.EdgeSecretFile, cfg.PublicURL = path, "wss://b1.example.com"
		cfg.OnOpen = func(s *backend.Session, r *http.Request) error {
			opened <- fmt.Sprint(s.User(), " ", s.Device(), " ", s.Address(), " ", r.URL, " ", r.RequestURI, " ", r.Header[backend.UserHeader], r.Header["X_selvedge_edge"])
			return nil
		}
	})
	m := c.members[0]
	const target = "/ws?device=phone"
	used := ticketFor(secrets, nil)
	jörg := func(t *identity.Ticket) { t.User = "jörg + co" }
	for _, test := range []struct {
		name, target, ticket string
		lines                []string
		status               int
		says                 string // the reason, or of a session what OnOpen saw
	}{
		{"a direct client", target, used, nil, 101, "alice phone 127.0.0.1 /ws?device=phone /ws?device=phone [alice] []"},
		{"replayed", target, used, nil, 401, "ticket_replayed"},
		{"of the older secret", target, ticketFor(older, jörg), nil, 101,
			"jörg + co phone 127.0.0.1 /ws?device=phone /ws?device=phone [j%C3%B6rg%20%2B%20co] []"},
		{"that says who it is, rightly", target, ticketFor(secrets, nil), []string{"X-Selvedge-User: alice"}, 101,
			"alice phone 127.0.0.1 /ws?device=phone /ws?device=phone [alice] []"},
		{"that says where it is, and more", target, ticketFor(secrets, nil), []string{"X-Forwarded-For: 9.9.9.9", "X_Selvedge_Edge: e", "X-Selvedge-Expires: x"},
			101, "alice phone 127.0.0.1 /ws?device=phone /ws?device=phone [alice] []"},
		{"forged", target, ticketFor(secrets, nil)[:60] + used[60:], nil, 401, "ticket_forged"},
		{"nonsense", target, "x", nil, 401, "ticket_malformed"},
		{"expired", target, ticketFor(secrets, func(t *identity.Ticket) { t.Expires = time.Now() }), nil, 401, "ticket_expired"},
		{"too good", target, ticketFor(secrets, func(t *identity.Ticket) { t.Expires = time.Now().Add(time.Hour) }), nil, 401, "ticket_clock"},
		{"of a secret that is gone", target, ticketFor(strange, nil), nil, 401, "ticket_unknown_key"},
		{"of another user", target, ticketFor(secrets, nil), []string{"X-Selvedge-User: bob"}, 403, "ticket_other_user"},
		{"of another user's URL", "/ws?device=phone&user=bob", ticketFor(secrets, nil), nil, 403, "ticket_other_url"},
		{"of another path", "/admin?device=phone", ticketFor(secrets, nil), nil, 403, "ticket_other_url"},
		{"of another member", target, ticketFor(secrets, func(t *identity.Ticket) { t.Backend = "b2" }), nil, 421, "ticket_other_backend"},
		{"whose token is over", target, ticketFor(secrets, func(t *identity.Ticket) { t.SessionEnd = time.Now() }), nil, 401, "token_expired"},
		{"with an edge's field, unsigned", target, "", []string{"X-Selvedge-User: alice"}, 401, "ticket_malformed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := m.socket(t)
			s.write([]byte(directly(test.target, test.ticket, test.lines...)))
			if test.status != 101 {
				resolve := s.wantRefusal(test.status, test.says)
				known := map[string]string{
					"ticket_replayed": target, "ticket_expired": target, "ticket_clock": target, "ticket_other_backend": target, "ticket_other_user": target,
				}[test.says]
				if want := origin + "/.well-known/selvedge/resolve?path=%2Fws&device=phone"; known != "" && resolve != want {
					t.Errorf("sends its client to %q, want %q", resolve, want)
				}
				return
			}
			if answer := s.answer(); answer.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("answered %s", answer.Status)
			}
			if saw := <-opened; saw != test.says {
				t.Errorf("OnOpen saw %s,\nwant %s", saw, test.says)
			}
		})
	}
}

// A direct session is one like all others: pushes reach it, it ends with its token, it moves; and a member that drains sends
// its client back to an edge.
func TestDirectSessions(t *testing.T) {
	path, secrets := secretFile(t, "1")
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.EdgeSecretFile, cfg.PublicURL = path, "ws://h"
		cfg.Move.Spread = 50 * time.Millisecond
	})
	m := c.members[0]
	direct := func(user string, change func(*identity.Ticket)) *socket {
		t.Helper()
		s := m.socket(t)
		s.write([]byte(directly("/ws?device=phone", ticketFor(secrets, func(t *identity.Ticket) {
			t.User = user
			if change != nil {
				change(t)
			}
		}))))
		if answer := s.answer(); answer.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("answered %s", answer.Status)
		}
		return s
	}
	alice := direct("alice", nil)
	edge := m.socket(t)
	edge.write([]byte(handshake("alice", "X-Selvedge-Signature: "+(signer{secrets, "default", "b1", 0}).sign("alice", "", ""))))
	if answer := edge.answer(); answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(answer.Status)
	}
	if n, err := m.Push(t.Context(), "alice", backend.Text("hi")); n != 2 || err != nil {
		t.Errorf("pushed to %d sessions, %v; want both", n, err)
	}
	alice.want("text hi")
	edge.want("text hi")

	short := direct("bob", func(t *identity.Ticket) { t.SessionEnd = time.Now().Add(2 * time.Second) }) // whole seconds
	short.want("close 1008 token expired", "end")
	short.Close()

	// A second member: whoever is its user now goes there.
	other := c.add(func(cfg *backend.Config) { cfg.EdgeSecretFile, cfg.PublicURL = path, "ws://h" })
	user := ""
	for i := 0; c.home(user) != other; i++ {
		user = fmt.Sprint("u", i)
	}
	moved := direct(user, nil)
	moved.want("close 1012 moved", "end")
	moved.Close()

	// One that is here because its home cannot be reached stays for now.
	stray := direct(user, func(t *identity.Ticket) { t.PassedOver = other.ID() })
	if n, err := m.Push(t.Context(), user, backend.Text("still here")); n != 1 || err != nil {
		t.Errorf("pushed to %d sessions, %v", n, err)
	}
	stray.want("text still here")

	// Draining, for as long as its clients do not close their side: a direct client is told to ask again.
	stopped := make(chan error, 1)
	go func() { stopped <- m.stop() }()
	testkit.Eventually(t, 5*time.Second, func() error {
		s := m.socket(t)
		s.write([]byte(directly("/ws?device=phone", ticketFor(secrets, nil))))
		if answer := s.answer(); answer.StatusCode != http.StatusMisdirectedRequest {
			return errors.New(answer.Status)
		}
		return nil
	}, "421")
	s := m.socket(t)
	s.write([]byte(directly("/ws?device=phone", ticketFor(secrets, nil))))
	if resolve := s.wantRefusal(421, "ticket_leaving"); !strings.HasPrefix(resolve, origin) {
		t.Errorf("sends its client to %q", resolve)
	}
	for _, s := range []*socket{alice, edge, stray} {
		s.Close()
	}
	if err := <-stopped; err != nil {
		t.Errorf("Run: %v", err)
	}
}
