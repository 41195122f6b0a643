package bridge

import "sync"

// lines keep the messages of each user in the order in which they came: one is pushed when those before it have their outcome.
type lines struct {
	mu   sync.Mutex
	last map[string]*place // the end of each user's line
}

// place is where one message stands in the lines of its users.
type place struct {
	ahead []<-chan struct{} // closed when the message before it, in one line, has left
	left  chan struct{}
}

func newLines() *lines { return &lines{last: make(map[string]*place)} }

// enter takes a place at the end of each user's line, of which each is named once, in one moment. It does not wait.
func (l *lines) enter(users []string) *place {
	p := &place{left: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, user := range users {
		if before := l.last[user]; before != nil {
			p.ahead = append(p.ahead, before.left)
		}
		l.last[user] = p
	}
	return p
}

// await returns when everybody ahead has left, or false where stop was closed before.
func (p *place) await(stop <-chan struct{}) bool {
	for _, ahead := range p.ahead {
		select {
		case <-ahead:
		case <-stop:
			return false
		}
	}
	return true
}

// leave lets those behind p go on.
func (l *lines) leave(p *place, users []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, user := range users {
		if l.last[user] == p {
			delete(l.last, user)
		}
	}
	close(p.left)
}
