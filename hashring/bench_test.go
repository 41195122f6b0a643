package hashring

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
)

// randomKeys returns n ids of 16 bytes, side by side in memory as a log or a request buffer would hold them.
func randomKeys(n int) []string {
	rng := rand.New(rand.NewPCG(1, 2))
	all := make([]byte, 0, n*16)
	for range n {
		all = fmt.Appendf(all, "%016x", rng.Uint64())
	}
	text, keys := string(all), make([]string, n)
	for i := range keys {
		keys[i] = text[i*16 : i*16+16]
	}
	return keys
}

// equalMembers returns n members of weight 1; set makes their IDs differ from those of other sets.
func equalMembers(set, n int) []Member {
	members := make([]Member, n)
	for i := range members {
		members[i] = Member{ID: fmt.Sprintf("set%d-member%d", set, i), Weight: 1}
	}
	return members
}

func mustNew(tb testing.TB, members []Member, opts ...Option) *Ring {
	tb.Helper()
	r, err := New(members, opts...)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

var benchSizes = []int{10, 100, 1000}

func BenchmarkOwner(b *testing.B) {
	keys := randomKeys(1 << 20)
	for _, n := range benchSizes {
		for _, secret := range []string{"", "0123456789abcdef"} {
			name, opts := "plain", []Option(nil)
			if secret != "" {
				name, opts = "keyed", []Option{WithSecret([]byte(secret))}
			}
			r := mustNew(b, equalMembers(0, n), opts...)
			b.Run(fmt.Sprintf("%s/members=%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					r.Owner(keys[i&(1<<20-1)])
				}
			})
		}
	}
}

func BenchmarkSuccessors(b *testing.B) {
	keys := randomKeys(1 << 20)
	r := mustNew(b, equalMembers(0, 100))
	for _, take := range []int{1, 3, 100} {
		b.Run(fmt.Sprintf("members=100/take=%d", take), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				n := 0
				for range r.Successors(keys[i&(1<<20-1)]) {
					if n++; n == take {
						break
					}
				}
			}
		})
	}
}

func BenchmarkNew(b *testing.B) {
	for _, n := range benchSizes {
		members := equalMembers(0, n)
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				mustNew(b, members)
			}
		})
	}
}

func BenchmarkWith(b *testing.B) {
	for _, n := range benchSizes {
		r := mustNew(b, equalMembers(0, n))
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.With(Member{ID: "one-more", Weight: 1}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkWithout(b *testing.B) {
	for _, n := range benchSizes {
		members := equalMembers(0, n)
		r := mustNew(b, members)
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.Without(members[n/2].ID)
			}
		})
	}
}

func BenchmarkDiff(b *testing.B) {
	for _, n := range benchSizes {
		members := equalMembers(0, n)
		r := mustNew(b, members)
		less := r.Without(members[n/2].ID)
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Diff(r, less)
			}
		})
	}
}

func BenchmarkMemory(b *testing.B) {
	for _, n := range benchSizes {
		members := equalMembers(0, n)
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			for b.Loop() {
				before := heap()
				r := mustNew(b, members)
				b.ReportMetric(float64(heap()-before)/float64(n)/1024, "KiB/unit")
				runtime.KeepAlive(r)
			}
		})
	}
}

// heap returns the bytes that are in use.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
