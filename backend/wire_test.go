package backend

import (
	"testing"

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
