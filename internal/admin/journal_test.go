package admin_test

import (
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/selvedge/selvedge/internal/admin"
)

// A journal answers as a plain list would that is cut to its size from the front.
func TestJournal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 5).Draw(t, "size")
		j := admin.NewJournal[int](size)
		var plain []admin.Entry[int]
		for i := range rapid.IntRange(0, 20).Draw(t, "entries") {
			j.Add(i)
			newest := j.After(0, 1)
			if len(newest) != 1 || newest[0].What != i || len(plain) > 0 && newest[0].Number <= plain[len(plain)-1].Number {
				t.Fatalf("after entry %d the newest is %+v, behind %+v", i, newest, plain)
			}
			if plain = append(plain, newest[0]); len(plain) > size {
				plain = plain[1:]
			}
		}
		var after uint64
		if n := rapid.IntRange(0, len(plain)).Draw(t, "after"); n > 0 {
			after = plain[n-1].Number
		}
		most := rapid.IntRange(1, 6).Draw(t, "most")
		want := plain
		for len(want) > 0 && want[0].Number <= after {
			want = want[1:]
		}
		want = want[max(0, len(want)-most):]
		got := j.After(after, most)
		if len(got) != len(want) {
			t.Fatalf("After(%d, %d) = %v, want %v", after, most, got, want)
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("After(%d, %d) = %v, want %v", after, most, got, want)
			}
		}
	})
}

func TestJournalIsShared(t *testing.T) {
	j := admin.NewJournal[int](8)
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for i := range 1000 {
				j.Add(i)
				for k, e := range j.After(0, 8) {
					if k > 8 || e.Number == 0 {
						t.Errorf("entry %d is %+v", k, e)
					}
				}
			}
		})
	}
	writers.Wait()
}

func BenchmarkJournalAdd(b *testing.B) {
	j := admin.NewJournal[int](256)
	b.ReportAllocs()
	for i := range b.N {
		j.Add(i)
	}
}
