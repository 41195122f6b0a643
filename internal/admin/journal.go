package admin

import (
	"sync"
	"time"
)

// Journal holds the last of what happened, up to as many as it is made for; then the oldest makes room. Each entry has a number, larger
// than any before it, over restarts of the process too, and small enough for a float64 (JavaScript) to hold.
type Journal[T any] struct {
	mu      sync.Mutex
	entries []Entry[T] // a ring: the entry of number n stands at n % cap
	next    uint64
	first   uint64 // the oldest that is held
}

// Entry is one of what happened.
type Entry[T any] struct {
	Number uint64    `json:"n"`
	At     time.Time `json:"-"`
	What   T         `json:"what"`
}

// NewJournal returns an empty journal for that many entries.
func NewJournal[T any](size int) *Journal[T] {
	next := uint64(time.Now().UnixMilli()) << 10 // room for a thousand entries in each millisecond between two starts
	return &Journal[T]{entries: make([]Entry[T], size), next: next, first: next}
}

// Add notes what happened just now.
func (j *Journal[T]) Add(what T) { j.AddAt(time.Now(), what) }

// AddAt notes what happened at a time that has passed.
func (j *Journal[T]) AddAt(at time.Time, what T) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries[j.next%uint64(len(j.entries))] = Entry[T]{j.next, at, what}
	j.next++
	if j.next-j.first > uint64(len(j.entries)) {
		j.first = j.next - uint64(len(j.entries))
	}
}

// After returns the newest entries with a number above number, oldest first, most at most.
func (j *Journal[T]) After(number uint64, most int) []Entry[T] {
	j.mu.Lock()
	defer j.mu.Unlock()
	from := max(j.first, number+1)
	if from >= j.next {
		return nil
	}
	if n := j.next - from; n > uint64(most) {
		from = j.next - uint64(most)
	}
	list := make([]Entry[T], 0, j.next-from)
	for n := from; n < j.next; n++ {
		list = append(list, j.entries[n%uint64(len(j.entries))])
	}
	return list
}
