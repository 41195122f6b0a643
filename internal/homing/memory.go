package homing

import (
	"container/list"
	"errors"
)

// ErrReused is returned for a message id that was used before with another payload.
var ErrReused = errors.New("message id used before with another payload")

// ErrFull is returned while the memory holds nothing that may be forgotten. Nothing was delivered: try again later.
var ErrFull = errors.New("too many recent messages to remember another")

// Memory remembers what became of recent messages, so that a repeat reaches no session twice. T is what a holder knows of one. A
// message is kept for some time after it was last asked for, and for as long as it is busy; while all its places are taken it
// takes no new one, since forgetting could send twice. It is not safe for concurrent use.
type Memory[T any] struct {
	places int
	keep   Instant
	busy   func(T) bool // some session has still to take it
	byKey  map[MessageKey]*list.Element
	oldest *list.List // of *memory[T], by when it was last asked for
}

// MessageKey names a message to one user; user "" is everybody.
type MessageKey struct{ User, Message string }

type memory[T any] struct {
	key         MessageKey
	fingerprint uint64
	at          Instant
	value       T
}

// NewMemory returns a memory of so many messages, each kept for the time given.
func NewMemory[T any](places int, keep Instant, busy func(T) bool) *Memory[T] {
	return &Memory[T]{places: places, keep: keep, busy: busy, byKey: make(map[MessageKey]*list.Element), oldest: list.New()}
}

// Find returns what is known of a message.
func (m *Memory[T]) Find(now Instant, key MessageKey, fingerprint uint64) (value T, known bool, err error) {
	e := m.byKey[key]
	if e == nil || m.isOver(now, e.Value.(*memory[T])) {
		return value, false, nil
	}
	found := e.Value.(*memory[T])
	if found.fingerprint != fingerprint {
		return value, false, ErrReused
	}
	found.at = now
	m.oldest.MoveToBack(e)
	return found.value, true, nil
}

// Join returns what is known of a message; where nothing is, it is from now on what create returns.
func (m *Memory[T]) Join(now Instant, key MessageKey, fingerprint uint64, create func() T) (value T, err error) {
	if found, known, err := m.Find(now, key, fingerprint); known || err != nil {
		return found, err
	}
	if e := m.byKey[key]; e != nil { // over
		m.forget(e)
	}
	m.forgetOver(now)
	if len(m.byKey) >= m.places {
		return value, ErrFull
	}
	value = create()
	m.byKey[key] = m.oldest.PushBack(&memory[T]{key, fingerprint, now, value})
	return value, nil
}

// Len returns how many messages are remembered.
func (m *Memory[T]) Len() int { return len(m.byKey) }

func (m *Memory[T]) isOver(now Instant, x *memory[T]) bool {
	return now-x.at > m.keep && !m.busy(x.value)
}

// forgetOver drops a few that are over for each that comes, so that no call takes long.
func (m *Memory[T]) forgetOver(now Instant) {
	for range 4 {
		e := m.oldest.Front()
		if e == nil || now-e.Value.(*memory[T]).at <= m.keep {
			return
		}
		if x := e.Value.(*memory[T]); m.busy(x.value) {
			x.at = now // looked at again later
			m.oldest.MoveToBack(e)
			continue
		}
		m.forget(e)
	}
}

func (m *Memory[T]) forget(e *list.Element) {
	delete(m.byKey, e.Value.(*memory[T]).key)
	m.oldest.Remove(e)
}
