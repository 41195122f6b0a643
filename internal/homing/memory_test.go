package homing_test

import (
	"errors"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"github.com/selvedge/selvedge/internal/homing"
)

// TestMemoryLaws holds a memory against a map that forgets nothing: whatever may still be asked for is known, a message id never has two
// payloads, and it never holds more than its places. Messages come to one user, or to one of many.
func TestMemoryLaws(t *testing.T) {
	type message struct {
		fingerprint uint64
		at          homing.Instant
		isBusy      bool
	}
	type text struct {
		id          string
		fingerprint uint64
	}
	const keep = 10
	rapid.Check(t, func(t *rapid.T) {
		places := rapid.IntRange(1, 12).Draw(t, "places")
		m := homing.NewMemory(places, keep, func(x *message) bool { return x.isBusy })
		many := make(map[text][]*homing.Many[*message])
		naive := make(map[homing.MessageKey]*message)
		now := homing.Instant(0)
		isOver := func(x *message) bool { return now-x.at > keep && !x.isBusy }
		living := func() (n int) {
			for _, x := range naive {
				if !isOver(x) {
					n++
				}
			}
			return n
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				if m.Len() > places || m.Len() < living() {
					t.Fatalf("%d messages in %d places, %d must be known", m.Len(), places, living())
				}
			},
			"time": func(t *rapid.T) { now += homing.Instant(rapid.IntRange(0, 8).Draw(t, "time")) },
			"decide": func(t *rapid.T) {
				for _, user := range "uvwxyz" {
					for _, id := range "abc" {
						if x, known := naive[homing.MessageKey{User: string(user), Message: string(id)}]; known && rapid.Bool().Draw(t, "decided") {
							x.isBusy = false
						}
					}
				}
			},
			"join": func(t *rapid.T) {
				key := homing.MessageKey{User: rapid.StringMatching("[u-z]").Draw(t, "user"), Message: rapid.StringMatching("[abc]").Draw(t, "id")}
				fingerprint := rapid.Uint64Range(1, 2).Draw(t, "fingerprint")
				created := false
				create := func() *message {
					created = true
					return &message{fingerprint, now, rapid.Bool().Draw(t, "busy")}
				}
				var got *message
				var err error
				one := text{key.Message, fingerprint}
				switch list, how := many[one], rapid.IntRange(-2, 2).Draw(t, "how"); {
				case how == -2:
					got, err = m.Join(now, key, fingerprint, create)
				case how < 0 || how >= len(list): // another call that pushes the same to many
					y := m.Many(key.Message, fingerprint, rapid.IntRange(1, 3).Draw(t, "users"))
					many[one] = append(list, y)
					got, err = y.Join(now, key.User, create)
				default:
					got, err = list[how].Join(now, key.User, create)
				}
				before := naive[key]
				mustKnow := before != nil && !isOver(before)
				switch {
				case before != nil && before.fingerprint != fingerprint && errors.Is(err, homing.ErrReused):
				case before != nil && got == before && err == nil && !created: // known, perhaps for longer than it has to be
					before.at = now
				case mustKnow:
					t.Fatalf("%v, %v: what it must know was forgotten", got, err)
				case err != nil:
					if !errors.Is(err, homing.ErrFull) || m.Len() < places {
						t.Fatalf("%v with %d of %d places taken, %d of them needed", err, m.Len(), places, living())
					}
				case !created:
					t.Fatal("it remembers a message that is over, or never was")
				default:
					naive[key] = got
				}
				if found, known, err := m.Find(now, key, fingerprint); err == nil && (!known || found != got) && got != nil {
					t.Fatalf("%v, %v, %v; it has just been joined", found, known, err)
				}
			},
		})
	})
}

// A message to many users is forgotten part by part; those who are busy are known until they are not, and keep nobody else's place.
func TestManyAreForgotten(t *testing.T) {
	const users = 1000
	isBusy := func(i int) bool { return i%100 == 7 }
	busy := true
	m := homing.NewMemory(users, 10, func(i int) bool { return busy && isBusy(i) })
	many := m.Many("m", 1, users)
	user := strconv.Itoa
	for i := range users {
		if got, err := many.Join(0, user(i), func() int { return i }); got != i || err != nil {
			t.Fatal(got, err)
		}
	}
	if got, err := m.Join(10, homing.MessageKey{User: user(5), Message: "m"}, 1, nil); got != 5 || err != nil { // keeps its part
		t.Fatal(got, err)
	}
	makeRoom := func(now homing.Instant) {
		for i := range 10 {
			if _, err := m.Join(now, homing.MessageKey{User: user(i), Message: "makes room"}, 1, func() int { return 0 }); err != nil {
				t.Fatal(err)
			}
		}
	}
	makeRoom(11)
	known := 0
	for i := range users {
		got, isKnown, err := m.Find(11, homing.MessageKey{User: user(i), Message: "m"}, 1)
		if err != nil || isKnown && got != i || !isKnown && isBusy(i) {
			t.Fatal(i, got, isKnown, err)
		}
		if isKnown {
			known++
		}
	}
	if known+10 != m.Len() || known > users/4 {
		t.Errorf("%d are known, in %d places", known, m.Len())
	}
	busy = false
	makeRoom(1000)
	if m.Len() != 10 || m.Groups() != 0 {
		t.Errorf("%d places are taken, and %d messages have users", m.Len(), m.Groups())
	}

	m = homing.NewMemory(users, 10, isBusy)
	many = m.Many("m", 1, 2)
	for now, user := range []string{"early", "late"} { // on the way of the second, the first and the message are forgotten
		at := homing.Instant(1000 * now)
		if got, err := many.Join(at, user, func() int { return now }); got != now || err != nil {
			t.Fatal(got, err)
		}
		if got, isKnown, err := m.Find(at, homing.MessageKey{User: user, Message: "m"}, 1); got != now || !isKnown || err != nil || m.Len() != 1 {
			t.Errorf("%s: %d, %v, %v; %d are known", user, got, isKnown, err, m.Len())
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
