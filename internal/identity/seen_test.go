package identity

import (
	"encoding/binary"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Whatever comes when: nothing is taken twice that is still valid, however little may be remembered; and with room enough, and clocks
// that agree, nothing is refused that is new.
func TestSeenLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.SampledFrom([]int{4, 16, 1000}).Draw(t, "most")
		skew := rapid.Int64Range(0, int64(ClockSkew)).Draw(t, "skew")
		s := &seen{span: seenFor, most: most}
		now := may
		type use struct {
			id    [16]byte
			stamp time.Time
		}
		var taken []use
		for i := range rapid.IntRange(1, 200).Draw(t, "uses") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(5*time.Second)).Draw(t, "wait")))
			if len(taken) > 0 && rapid.Bool().Draw(t, "again") {
				u := rapid.SampledFrom(taken).Draw(t, "which")
				if valid := !u.stamp.Before(now.Add(-ClockSkew)); valid && s.first(u.id, u.stamp, now) {
					t.Fatalf("taken twice, %v after its time", now.Sub(u.stamp))
				}
				continue
			}
			u := use{stamp: now.Add(time.Duration(rapid.Int64Range(-skew, skew).Draw(t, "off")))}
			binary.BigEndian.PutUint64(u.id[:], uint64(i))
			if s.first(u.id, u.stamp, now) {
				taken = append(taken, u)
			} else if most == 1000 {
				t.Fatal("refused though it is new and there is room")
			}
			if n := len(s.young.ids) + len(s.old.ids); n > most {
				t.Fatalf("remembers %d, bound %d", n, most)
			}
		}
	})
}
