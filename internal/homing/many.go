package homing

import "container/list"

// Many remembers one message to many users, for less than a Join for each: a part of the users is one memory, whose time is that of
// whoever of them was asked for last. Else it is the same: each user takes a place, and is found by his own [MessageKey].
type Many[T any] struct {
	memory      *Memory[T]
	message     string
	fingerprint uint64
	most        int             // users that are to be expected
	users       map[string]spot // of the message, where Memory.groups had it last
	part        *list.Element   // where the next user goes; nil before the first
}

// partUsers is how many users share a memory: it is forgotten at once.
const partUsers = 128

// spot is where a user of Many is.
type spot struct {
	element *list.Element
	at      int // in its many
}

// Many returns a Many of one message, for so many users. It may be used for as long as the memory.
func (m *Memory[T]) Many(message string, fingerprint uint64, users int) *Many[T] {
	return &Many[T]{memory: m, message: message, fingerprint: fingerprint, most: users}
}

// Join is [Memory.Join] for one of the users.
func (y *Many[T]) Join(now Instant, user string, create func() T) (T, error) {
	if len(y.users) == 0 { // the first, or the last of them was forgotten, and the message with it
		y.users = y.memory.groups[y.message]
	}
	value, isKnown, err := y.memory.place(now, MessageKey{user, y.message}, y.users, y.fingerprint)
	if !isKnown && err == nil {
		value = create()
		y.add(now, known[T]{user, value})
	}
	return value, err
}

func (y *Many[T]) add(now Instant, k known[T]) {
	m := y.memory
	var x *memory[T]
	if y.part != nil {
		x = y.part.Value.(*memory[T])
	}
	if x == nil || len(x.many) == cap(x.many) { // the first, full, or retired
		x = &memory[T]{message: y.message, fingerprint: y.fingerprint, many: make([]known[T], 0, min(y.most, partUsers))}
		y.part = m.oldest.PushBack(x)
	}
	x.at = now
	m.oldest.MoveToBack(y.part)
	if len(y.users) == 0 { // as place has left it, which may forget
		if y.users = m.groups[y.message]; y.users == nil {
			y.users = make(map[string]spot, y.most)
			m.groups[y.message] = y.users
		}
	}
	y.users[k.user] = spot{y.part, len(x.many)}
	x.many = append(x.many, k)
}

// retireMany forgets a part of a group. Those of it that are busy are remembered one by one from then on: they must not keep what was
// made for many.
func (m *Memory[T]) retireMany(now Instant, e *list.Element) {
	x := e.Value.(*memory[T])
	group := m.groups[x.message]
	for _, k := range x.many {
		delete(group, k.user)
		if m.busy(k.value) {
			m.add(now, x.message, x.fingerprint, k)
		} else {
			m.taken--
		}
	}
	if len(group) == 0 {
		delete(m.groups, x.message)
	}
	m.oldest.Remove(e)
	x.many = nil
}
