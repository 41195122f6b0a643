package backend

import "sync"

// door counts what Run must see the end of before it takes away what that stands on, and lets new ones in only while the member
// runs: sessions, from their registration until their OnClose has returned, and calls. The zero door is shut.
type door struct {
	mu     sync.Mutex
	isOpen bool
	inside int
	empty  chan struct{} // made by shut; closed once nobody is inside
}

func (d *door) open() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.isOpen = true
}

// enter reports whether one may come in; if so, leave is called once for it.
func (d *door) enter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isOpen {
		d.inside++
	}
	return d.isOpen
}

func (d *door) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.inside--; d.inside == 0 && d.empty != nil {
		close(d.empty)
	}
}

// shut lets nobody in any more and returns what is closed once the last has left. It is called once.
func (d *door) shut() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.isOpen = false
	d.empty = make(chan struct{})
	if d.inside == 0 {
		close(d.empty)
	}
	return d.empty
}

// count returns how many are inside.
func (d *door) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.inside
}
