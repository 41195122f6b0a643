package backend

import (
	"errors"
	"slices"
	"testing"

	"github.com/selvedge/selvedge/hashring"
	"github.com/selvedge/selvedge/internal/homing"
	"github.com/selvedge/selvedge/internal/peerv1"
)

// The numbers of refusals are the contract's.
func TestRefusalsOnTheWire(t *testing.T) {
	for refusal, want := range map[homing.Refusal]peerv1.Refusal{
		homing.Accepted:  peerv1.Refusal_NONE,
		homing.NotMe:     peerv1.Refusal_NOT_ME,
		homing.HeldDead:  peerv1.Refusal_HELD_DEAD,
		homing.NotJoined: peerv1.Refusal_NOT_JOINED,
		homing.Unknown:   peerv1.Refusal_UNKNOWN_REQUEST,
	} {
		w := calleeToWire(homing.Callee{Refusal: refusal})
		if w.Refusal != want {
			t.Errorf("%d goes out as %v, want %v", refusal, w.Refusal, want)
		}
		if back := calleeFromWire(w); back.Refusal != refusal {
			t.Errorf("%v comes in as %d", want, back.Refusal)
		}
	}
	later := calleeFromWire(&peerv1.Callee{Process: &peerv1.Process{Member: "b1"}, Refusal: 99})
	if later.Refusal != homing.Unknown {
		t.Errorf("a refusal of a later release is %d", later.Refusal)
	}
}

// A promise lists the members of its ring for those who do not know it, and only for those.
func TestPromiseOnTheWire(t *testing.T) {
	b := newIdle(t, nil)
	ring, err := hashring.New([]hashring.Member{{ID: "x", Weight: 2}, {ID: "y", Weight: 1}})
	if err != nil {
		t.Fatal(err)
	}
	said := &homing.Promise{Sequence: 7, Ring: ring, Users: []homing.User{1, 1 << 63}}
	w := promiseToWire(said, "another")
	if len(w.Members) != 2 {
		t.Fatalf("%d members go out to one who has another ring, want 2", len(w.Members))
	}
	heard, err := b.home.promiseFromWire(w)
	if err != nil {
		t.Fatal(err)
	}
	if heard.Ring.Digest() != ring.Digest() || heard.Sequence != 7 || !slices.Equal(heard.Users, said.Users) {
		t.Errorf("%+v comes in as %+v", said, heard)
	}
	if w = promiseToWire(said, ring.Digest()); len(w.Members) != 0 {
		t.Errorf("%d members go out to one who knows the ring", len(w.Members))
	}
	if heard, err = b.home.promiseFromWire(w); err != nil || heard.Ring.Digest() != ring.Digest() {
		t.Errorf("a ring that is known: %v", err)
	}
	w = promiseToWire(said, "another")
	w.RingDigest, w.Members = "of a ring with a secret", w.Members[:1]
	if _, err := b.home.promiseFromWire(w); !errors.Is(err, errOtherRing) {
		t.Errorf("members that make another ring: %v", err)
	}
}
