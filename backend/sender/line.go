package sender

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
)

// maxWaiting is how many pushes to one user may wait for the one under way; more are refused as resource_exhausted.
const maxWaiting = 64

// lines keeps the pushes to each user one behind the other: one is under way, the others wait, first come first served.
type lines struct {
	mu      sync.Mutex
	waiting map[string][]waiter // an entry for each user with a push under way: those behind it
}

// waiter is one push's place in a user's line.
type waiter struct {
	turn  chan<- int // gets index when it is this push's turn; has room for it
	index int
}

// join puts w at the end of a user's line; l.mu is held. Where nobody is ahead, it is w's turn at once.
func (l *lines) join(user string, w waiter) error {
	line, busy := l.waiting[user]
	switch {
	case !busy:
		l.waiting[user] = nil
		w.turn <- w.index
	case len(line) == maxWaiting:
		return pushv1.NewError(connect.CodeResourceExhausted, &pushv1.ErrorDetail{Reason: pushv1.Reason_OVERLOADED},
			fmt.Errorf("%d pushes to this user wait in this process already; this one was not sent", maxWaiting))
	default:
		l.waiting[user] = append(line, w)
	}
	return nil
}

// pass gives the next in a user's line its turn; l.mu is held.
func (l *lines) pass(user string) {
	line := l.waiting[user]
	if len(line) == 0 {
		delete(l.waiting, user)
		return
	}
	line[0].turn <- line[0].index
	l.waiting[user] = slices.Delete(line, 0, 1)
}

// await returns when it is the turn of a push to user, which says leave at its end. On an error it is not in the line.
func (l *lines) await(ctx context.Context, user string) error {
	l.mu.Lock()
	if _, busy := l.waiting[user]; !busy { // nearly always; places would do the same, with more ado
		l.waiting[user] = nil
		l.mu.Unlock()
		return nil
	}
	l.mu.Unlock()
	p, refused := l.joinAll([]string{user})
	if err := refused[0]; err != nil {
		return err
	}
	_, err := p.next(ctx)
	return err
}

// leave ends the push to user that is under way.
func (l *lines) leave(user string) {
	l.mu.Lock()
	l.pass(user)
	l.mu.Unlock()
}

// places is where one call stands in the lines of its users.
type places struct {
	lines   *lines
	users   []string
	turn    chan int // indices of users
	waiting int      // users whose turn next has not told yet
}

// joinAll takes a place in the line of each user. Of users whose line is full it returns the error, by their index.
func (l *lines) joinAll(users []string) (p *places, refused map[int]error) {
	p = &places{lines: l, users: users, turn: make(chan int, len(users)), waiting: len(users)}
	refused = make(map[int]error)
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, user := range users {
		if err := l.join(user, waiter{p.turn, i}); err != nil {
			refused[i] = err
			p.waiting--
		}
	}
	return p, refused
}

// next waits for the next turn and returns all indices whose turn it is by then. When ctx ends first it leaves the lines, and returns the
// error of the pushes not sent and their indices.
func (p *places) next(ctx context.Context) ([]int, error) {
	var list []int
	var err error
	select {
	case i := <-p.turn:
		list = append(list, i)
	case <-ctx.Done():
		err = notSent(ctx.Err())
	}
	p.lines.mu.Lock() // a call to many users that ends gives all their turns before anybody sees the first
	defer p.lines.mu.Unlock()
	list = append(list, p.turns()...)
	if err != nil {
		waiting := p.withdraw() // before turns are passed on: a user named twice would get one that nobody takes
		for _, i := range list {
			p.lines.pass(p.users[i])
		}
		list = append(list, waiting...)
	}
	p.waiting -= len(list)
	return list, err
}

// turns takes the turns that were given so far.
func (p *places) turns() []int {
	var list []int
	for {
		select {
		case i := <-p.turn:
			list = append(list, i)
		default:
			return list
		}
	}
}

// withdraw takes the pushes that wait out of their lines and returns their indices; lines.mu is held.
func (p *places) withdraw() []int {
	var list []int
	for _, user := range p.users {
		line := p.lines.waiting[user]
		if len(line) == 0 {
			continue
		}
		kept := line[:0]
		for _, w := range line {
			if w.turn == p.turn {
				list = append(list, w.index)
			} else {
				kept = append(kept, w)
			}
		}
		clear(line[len(kept):])
		p.lines.waiting[user] = kept
	}
	return list
}

// leave ends the pushes to the users of those indices.
func (p *places) leave(indices []int) {
	p.lines.mu.Lock()
	defer p.lines.mu.Unlock()
	for _, i := range indices {
		p.lines.pass(p.users[i])
	}
}

// notSent is the error of a push whose time ended before its turn came.
func notSent(end error) error {
	code := connect.CodeDeadlineExceeded
	if errors.Is(end, context.Canceled) {
		code = connect.CodeCanceled
	}
	return connect.NewError(code, fmt.Errorf("an earlier push to this user has not ended; this one was not sent: %w", end))
}
