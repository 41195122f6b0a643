package backend

import "sync"

// crew is the goroutines that run the service's handlers. Whoever is done with a session takes the next one that has messages, instead
// of ending while another goroutine is made for that one.
//
// A handler may block for as long as it likes, so no session must wait for one that runs: as long as one waits, somebody who is in no
// handler is about to look. Handlers that block have a goroutine each, then, as if each session had its own, and those that do
// not are called in a row by one on each processor.
type crew struct {
	mu    sync.Mutex
	ready []*Session // the oldest first; each at most once, since it is not handed in again before it was worked off
	first int        // of ready: those before it are taken
	free  int        // goroutines that are in no handler: at least one while somebody is ready
}

// hand has s worked off soon.
func (c *crew) hand(s *Session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.ready) == cap(c.ready) && c.first > len(c.ready)/2 {
		n := copy(c.ready, c.ready[c.first:])
		clear(c.ready[n:])
		c.ready, c.first = c.ready[:n], 0
	}
	c.ready = append(c.ready, s)
	c.standBy()
}

// standBy sees to it that somebody looks; mu is held.
func (c *crew) standBy() {
	if c.free == 0 {
		c.free++
		go c.run()
	}
}

// run is the life of one of the crew.
func (c *crew) run() {
	c.mu.Lock()
	for c.first < len(c.ready) {
		s := c.take()
		c.free--
		if c.first < len(c.ready) {
			c.standBy()
		}
		c.mu.Unlock()
		c.work(s)
		c.mu.Lock()
		c.free++
	}
	c.free--
	c.mu.Unlock()
}

// work works s off. Where a handler ends the goroutine (runtime.Goexit, or a test's FailNow) somebody else goes on: of those in no
// handler this one is not missed.
func (c *crew) work(s *Session) {
	returned := false
	defer func() {
		if !returned {
			s.beginClose(Panicked, 0, "")
			c.hand(s)
		}
	}()
	s.work()
	returned = true
}

// keepReady is how many places an emptied queue keeps.
const keepReady = 1024

func (c *crew) take() *Session {
	s := c.ready[c.first]
	c.ready[c.first] = nil
	if c.first++; c.first == len(c.ready) {
		c.ready, c.first = c.ready[:0], 0
		if cap(c.ready) > keepReady {
			c.ready = nil
		}
	}
	return s
}
