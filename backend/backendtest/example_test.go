package backendtest_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/backend/backendtest"
)

// room is a service: whatever one says, the other hears.
type room struct{ *backend.Backend }

func (r *room) OnOpen(s *backend.Session, q *http.Request) error {
	if q.Header.Get("X-Ticket") == "" {
		return &backend.Refusal{Status: 403, Text: "no ticket"}
	}
	return s.Send(backend.Text("welcome, " + s.User()))
}

func (r *room) OnMessage(s *backend.Session, m backend.Message) {
	if string(m.Data) == "bye" {
		s.Close(4000, "goodbye")
		return
	}
	other := map[string]string{"alice": "bob", "bob": "alice"}[s.User()]
	if n, err := r.Push(context.Background(), other, m); n == 0 || err != nil {
		_ = s.Send(backend.Text(other + " is not here"))
	}
}

// A service's own test, as it would write it.
func TestExample(t *testing.T) {
	var service room
	m := backendtest.New(t, backend.Config{OnOpen: service.OnOpen, OnMessage: service.OnMessage})
	service.Backend = m.Backend
	ticket := backendtest.Header("X-Ticket", "7")

	m.WantRefused(403, "alice")
	alice := m.Connect("alice", ticket)
	want(t, alice, "welcome, alice")
	alice.Send(backend.Text("bob?"))
	want(t, alice, "bob is not here")

	bob := m.Connect("bob", ticket, backendtest.Target("/?device=phone"))
	want(t, bob, "welcome, bob")
	if device := m.SessionsOf("bob")[0].Device(); device != "phone" {
		t.Errorf("bob's device is %q", device)
	}
	alice.Send(backend.Text("hi bob"))
	want(t, bob, "hi bob")

	bob.Send(backend.Text("bye"))
	if reason := bob.WantClose(4000); reason != "goodbye" {
		t.Errorf("closed with %q", reason)
	}
	alice.Close()
}

func want(t *testing.T, c *backendtest.Client, text string) {
	t.Helper()
	if got := c.Receive(); string(got.Data) != text {
		t.Fatalf("got %q, want %q", got.Data, text)
	}
}
