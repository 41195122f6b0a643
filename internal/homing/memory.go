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
	taken  int          // of places
	byKey  map[MessageKey]*list.Element
	groups map[string]map[string]spot // by message and user: what Many has remembered
	oldest *list.List                 // of *memory[T], by when it was last asked for
}

// MessageKey names a message to one user; user "" is everybody.
type MessageKey struct{ User, Message string }

// memory is what is known of a message to one user, or to some of many.
type memory[T any] struct {
	message     string
	fingerprint uint64
	at          Instant
	one         known[T]
	many        []known[T] // in place of one
}

type known[T any] struct {
	user  string
	value T
}

// NewMemory returns a memory of so many messages, each kept for the time given.
func NewMemory[T any](places int, keep Instant, busy func(T) bool) *Memory[T] {
	return &Memory[T]{
		places: places, keep: keep, busy: busy,
		byKey: make(map[MessageKey]*list.Element), groups: make(map[string]map[string]spot), oldest: list.New(),
	}
}

// Find returns what is known of a message.
func (m *Memory[T]) Find(now Instant, key MessageKey, fingerprint uint64) (value T, known bool, err error) {
	e, k := m.find(key, m.groups[key.Message])
	if e == nil {
		return value, false, nil
	}
	return m.recall(now, e, k, fingerprint)
}

// Join returns what is known of a message; where nothing is, it is from now on what create returns.
func (m *Memory[T]) Join(now Instant, key MessageKey, fingerprint uint64, create func() T) (T, error) {
	value, isKnown, err := m.place(now, key, m.groups[key.Message], fingerprint)
	if !isKnown && err == nil {
		value = create()
		m.add(now, key.Message, fingerprint, known[T]{key.User, value})
	}
	return value, err
}

// Len returns how many messages are remembered, one to many users as many times.
func (m *Memory[T]) Len() int { return m.taken }

// place returns what is known of a message, or takes a place for it. users are those of the message in groups.
func (m *Memory[T]) place(now Instant, key MessageKey, users map[string]spot, fingerprint uint64) (value T, isKnown bool, err error) {
	if e, k := m.find(key, users); e != nil {
		if value, isKnown, err = m.recall(now, e, k, fingerprint); isKnown || err != nil {
			return value, isKnown, err
		}
		m.retire(now, e)
	}
	m.forgetOver(now)
	if m.taken >= m.places {
		return value, false, ErrFull
	}
	m.taken++
	return value, false, nil
}

func (m *Memory[T]) find(key MessageKey, users map[string]spot) (*list.Element, *known[T]) {
	if e := m.byKey[key]; e != nil {
		return e, &e.Value.(*memory[T]).one
	}
	if s, isThere := users[key.User]; isThere {
		return s.element, &s.element.Value.(*memory[T]).many[s.at]
	}
	return nil, nil
}

// recall returns what was found, unless it is over.
func (m *Memory[T]) recall(now Instant, e *list.Element, k *known[T], fingerprint uint64) (value T, isKnown bool, err error) {
	x := e.Value.(*memory[T])
	if now-x.at > m.keep && !m.busy(k.value) {
		return value, false, nil
	}
	if x.fingerprint != fingerprint {
		return value, false, ErrReused
	}
	x.at = now
	m.oldest.MoveToBack(e)
	return k.value, true, nil
}

func (m *Memory[T]) add(now Instant, message string, fingerprint uint64, k known[T]) {
	m.byKey[MessageKey{k.user, message}] = m.oldest.PushBack(&memory[T]{message: message, fingerprint: fingerprint, at: now, one: k})
}

// forgetOver drops a few that are over for each that comes, so that no call takes long.
func (m *Memory[T]) forgetOver(now Instant) {
	for range 4 {
		e := m.oldest.Front()
		if e == nil || now-e.Value.(*memory[T]).at <= m.keep {
			return
		}
		m.retire(now, e)
	}
}

// retire forgets a memory that is old, but for what is busy, which is looked at again later.
func (m *Memory[T]) retire(now Instant, e *list.Element) {
	x := e.Value.(*memory[T])
	switch {
	case x.many != nil:
		m.retireMany(now, e)
	case m.busy(x.one.value):
		x.at = now
		m.oldest.MoveToBack(e)
	default:
		delete(m.byKey, MessageKey{x.one.user, x.message})
		m.oldest.Remove(e)
		m.taken--
	}
}
