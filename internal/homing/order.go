package homing

// Order keeps a sender from being overtaken by itself: a push that comes after a later one of the same sender to the same user is
// too late. It remembers so many pairs, the most recent ones at least; a pair that is forgotten costs order, nothing else. It is
// not safe for concurrent use.
type Order struct {
	pairs       int
	recent, old map[orderKey]uint64
}

type orderKey struct{ sender, user string }

// NewOrder returns an order of at least so many pairs, and at most twice as many.
func NewOrder(pairs int) *Order {
	return &Order{pairs: pairs, recent: make(map[orderKey]uint64)}
}

// InTime tells whether no later push of sender to user has been here, and remembers this one.
func (o *Order) InTime(sender, user string, sequence uint64) bool {
	key := orderKey{sender, user}
	last, known := o.recent[key]
	if !known {
		last = o.old[key]
	}
	if sequence < last {
		return false
	}
	if len(o.recent) >= o.pairs && !known {
		o.old, o.recent = o.recent, make(map[orderKey]uint64)
	}
	o.recent[key] = sequence
	return true
}
