package systemtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/backend/sender"
)

// pushes sends, and logs what it was told for the judge.
type pushes struct {
	sender *sender.Sender
	users  []string

	mu  sync.Mutex
	log []*push // each is complete once its call has returned
	wg  sync.WaitGroup
}

const pushDeadline = 5 * time.Second

// steadily pushes to users by lot, perSecond times a second, until ctx ends. How fast answers come makes no difference.
func (p *pushes) steadily(ctx context.Context, perSecond int) {
	began := time.Now()
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	defer tick.Stop()
	for sent := 0; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for due := int(time.Since(began).Seconds() * float64(perSecond)); sent < due; sent++ { // a busy machine skips ticks
			user := p.users[rand.IntN(len(p.users))]
			p.wg.Go(func() { p.push(user, false) })
		}
	}
}

// push makes one push and logs it.
func (p *pushes) push(user string, probe bool) *push {
	p.mu.Lock()
	one := &push{id: fmt.Sprintf("push %d", len(p.log)), user: user, probe: probe}
	p.log = append(p.log, one)
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), pushDeadline)
	defer cancel()
	one.began = time.Now()
	result, err := p.sender.Push(ctx, user, sender.Text(one.id))
	one.ended, one.sessions = time.Now(), result.Sessions
	if err != nil {
		one.sessions = 0
		one.failure = strings.TrimSuffix(connect.CodeOf(err).String()+" "+pushv1.DetailOf(err).GetReason().String(), " REASON_UNSPECIFIED")
	}
	return one
}

const (
	probeFor   = 20 * time.Second
	probeEvery = 20 * time.Millisecond
)

// probe pushes to user until one push is delivered, and returns how long after since that was; false: not within probeFor.
func (p *pushes) probe(user string, since time.Time) (time.Duration, bool) {
	for time.Since(since) < probeFor {
		if one := p.push(user, true); one.failure == "" && one.sessions > 0 {
			return one.ended.Sub(since), true
		}
		time.Sleep(probeEvery/2 + rand.N(probeEvery)) // offline is told at once; everybody asks for himself
	}
	return 0, false
}
