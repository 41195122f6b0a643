package reactor

import "sync"

// Queue hands over from loops, which must not wait, to a goroutine that does. Its users bound it elsewhere: by descriptors, where what is handed
// over are connections.
type Queue[T any] struct {
	mu     sync.Mutex
	some   *sync.Cond
	items  []T
	closed bool
}

// NewQueue returns an empty queue.
func NewQueue[T any]() *Queue[T] {
	q := new(Queue[T])
	q.some = sync.NewCond(&q.mu)
	return q
}

// Put puts item at the end, and does not wait. False: the queue is closed, and item still the caller's.
func (q *Queue[T]) Put(item T) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.items = append(q.items, item)
	q.some.Signal()
	return true
}

// Take waits for an item. False: the queue is closed.
func (q *Queue[T]) Take() (item T, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 && !q.closed {
		q.some.Wait()
	}
	if q.closed {
		return item, false
	}
	item = q.items[0]
	var none T
	q.items[0] = none // the array outlives it
	q.items = q.items[1:]
	return item, true
}

// Close ends the waiting, and returns what nobody has taken.
func (q *Queue[T]) Close() []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	left := q.items
	q.items, q.closed = nil, true
	q.some.Broadcast()
	return left
}
