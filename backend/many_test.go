package backend_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/backend/sender"
)

// What a PushMany has sent, no repeat sends again: of one user by himself, of some with others, under a batch's border or not; and the message
// id of a user means one text, whichever way it came.
func TestRepeatsOfPushMany(t *testing.T) {
	c := newCluster(t, 1, nil)
	b := c.members[0]
	ctx := context.Background()
	s := newSender(t, sender.Config{Membership: sender.Membership{Memory: c.registry}})
	var users []string
	var clients []*client
	for i := range 300 { // more than a batch
		users = append(users, fmt.Sprint("user-", i))
		clients = append(clients, b.dial(t, users[i], "/"))
	}
	m := sender.Message{Data: []byte("once"), ID: "m"}
	if n, err := b.Push(ctx, users[7], backend.Text("once"), backend.WithMessageID("m")); n != 1 || err != nil {
		t.Fatalf("alone: %d, %v", n, err)
	}
	pushAll := func(users []string) {
		t.Helper()
		results, err := s.PushMany(ctx, users, m)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			if r.Sessions != 1 || r.Err != nil {
				t.Fatalf("%+v", r)
			}
		}
	}
	pushAll(append([]string{users[3]}, users[:280]...)) // one of them twice
	pushAll(users[100:])
	for _, i := range []int{0, 7, 255, 256, 279, 280, 299} {
		if n, err := b.Push(ctx, users[i], backend.Text("once"), backend.WithMessageID("m")); n != 1 || err != nil {
			t.Errorf("%s, repeated: %d, %v", users[i], n, err)
		}
		if _, err := b.Push(ctx, users[i], backend.Text("else"), backend.WithMessageID("m")); !errors.Is(err, backend.ErrMessageReused) {
			t.Errorf("%s, another text: %v", users[i], err)
		}
	}
	clients = append(clients, b.dial(t, "late", "/"))
	results, err := s.PushMany(ctx, []string{users[0], "late"}, sender.Message{Data: []byte("else"), ID: "m"})
	if err != nil || connect.CodeOf(results[0].Err) != connect.CodeAlreadyExists || pushv1.DetailOf(results[0].Err).GetReason() != pushv1.Reason_MESSAGE_REUSED {
		t.Errorf("another text to many: %+v, %v", results, err)
	}
	second := b.dial(t, users[1], "/") // a session that has opened since is asked
	if n, err := b.Push(ctx, users[1], backend.Text("once"), backend.WithMessageID("m")); n != 2 || err != nil {
		t.Errorf("with a newer session: %d, %v", n, err)
	}
	second.want("once")
	if n, _, err := s.Broadcast(ctx, sender.Text("last")); n != len(clients)+1 || err != nil {
		t.Fatalf("broadcast: %d, %v", n, err)
	}
	for _, client := range clients[:300] {
		client.want("once")
		client.want("last")
	}
	clients[300].want("else")
	second.want("last")
}
