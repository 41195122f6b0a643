package homing_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/selvedge/selvedge/internal/homing"
)

// TestOrderLaws holds an order against one that forgets nothing. While there are no more pairs than it has places they agree; with more,
// what it calls too late is.
func TestOrderLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pairs := rapid.IntRange(1, 8).Draw(t, "pairs")
		users := rapid.IntRange(1, 12).Draw(t, "users")
		o := homing.NewOrder(pairs)
		last := make(map[int]uint64)
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				user := rapid.IntRange(1, users).Draw(t, "user")
				sequence := rapid.Uint64Range(1, 9).Draw(t, "sequence")
				got, want := o.InTime("s", fmt.Sprint(user), sequence), sequence >= last[user]
				if got != want && (users <= pairs || !got) {
					t.Fatalf("push %d to %d after %d: in time %v", sequence, user, last[user], got)
				}
				if got {
					last[user] = sequence
				}
			},
		})
	})
}

// The most recent pairs are remembered, however many there were.
func TestOrderRemembersTheMostRecent(t *testing.T) {
	const pairs = 10
	o := homing.NewOrder(pairs)
	for i := range 1000 {
		o.InTime("s", fmt.Sprint(i), 2)
		for back := range min(pairs, i+1) {
			if o.InTime("s", fmt.Sprint(i-back), 1) {
				t.Fatalf("after %d pairs the one %d before is forgotten", i+1, back)
			}
		}
	}
}
