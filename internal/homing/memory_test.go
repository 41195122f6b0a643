package homing_test

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/selvedge/selvedge/internal/homing"
)

// TestMemoryLaws holds a memory against a map that forgets nothing: whatever may still be asked for is known, a message id never has two
// payloads, and it never holds more than its places.
func TestMemoryLaws(t *testing.T) {
	type message struct {
		fingerprint uint64
		at          homing.Instant
		isBusy      bool
	}
	const keep = 10
	rapid.Check(t, func(t *rapid.T) {
		places := rapid.IntRange(1, 6).Draw(t, "places")
		m := homing.NewMemory(places, keep, func(x *message) bool { return x.isBusy })
		naive := make(map[homing.MessageKey]*message)
		now := homing.Instant(0)
		isOver := func(x *message) bool { return now-x.at > keep && !x.isBusy }
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				if m.Len() > places {
					t.Fatalf("%d messages in %d places", m.Len(), places)
				}
			},
			"time":   func(t *rapid.T) { now += homing.Instant(rapid.IntRange(0, 8).Draw(t, "time")) },
			"decide": func(t *rapid.T) { decide(t, naive, func(x *message) { x.isBusy = false }) },
			"join": func(t *rapid.T) {
				key := homing.MessageKey{User: "u", Message: rapid.StringMatching("[a-h]").Draw(t, "id")}
				fingerprint := rapid.Uint64Range(1, 2).Draw(t, "fingerprint")
				created := false
				got, err := m.Join(now, key, fingerprint, func() *message {
					created = true
					return &message{fingerprint, now, rapid.Bool().Draw(t, "busy")}
				})
				before := naive[key]
				mustKnow := before != nil && !isOver(before)
				switch {
				case before != nil && before.fingerprint != fingerprint && errors.Is(err, homing.ErrReused):
				case before != nil && got == before && err == nil && !created: // known, perhaps for longer than it has to be
					before.at = now
				case mustKnow:
					t.Fatalf("%v, %v: what it must know was forgotten", got, err)
				case err != nil:
					living := 0
					for _, x := range naive {
						if !isOver(x) {
							living++
						}
					}
					if !errors.Is(err, homing.ErrFull) || m.Len() < places {
						t.Fatalf("%v with %d of %d places taken, %d of them needed", err, m.Len(), places, living)
					}
				case !created:
					t.Fatal("it remembers a message that is over, or never was")
				default:
					naive[key] = got
				}
			},
		})
	})
}

// decide has some message that is busy be decided.
func decide[T any](t *rapid.T, of map[homing.MessageKey]T, do func(T)) {
	for _, id := range "abcdefgh" {
		if x, known := of[homing.MessageKey{User: "u", Message: string(id)}]; known && rapid.Bool().Draw(t, "decided") {
			do(x)
		}
	}
}

// A full memory takes new messages again as soon as old ones are over, however many are busy at the front.
func TestMemoryMakesRoom(t *testing.T) {
	busy := map[int]bool{0: true, 1: true, 2: true, 3: true, 4: true, 5: true}
	m := homing.NewMemory(8, 10, func(i int) bool { return busy[i] })
	id := func(i int) homing.MessageKey { return homing.MessageKey{Message: string(rune('a' + i))} }
	for i := range 8 {
		if _, err := m.Join(0, id(i), 1, func() int { return i }); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Join(5, id(8), 1, func() int { return 8 }); !errors.Is(err, homing.ErrFull) {
		t.Fatalf("%v; want ErrFull: nothing is over", err)
	}
	for tries := 1; ; tries++ {
		if _, err := m.Join(20, id(8), 1, func() int { return 8 }); err == nil {
			break
		} else if tries == 3 {
			t.Fatalf("%v, though two messages are over", err)
		}
	}
}
