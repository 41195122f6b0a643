package bridge

import (
	"sync"
	"time"
)

// acker acknowledges the deliveries of one AMQP channel, of which tags count from 1. Those that end within a moment go in one frame where
// no other is among them: a frame for each would cost the broker and this process more than the rest of the way.
type acker struct {
	ch      ackChannel
	wake    chan struct{} // has a value when there is something to tell
	quit    chan struct{}
	stopped sync.WaitGroup
	once    sync.Once
	err     error // of the channel; read after stopped

	mu    sync.Mutex
	base  uint64          // the lowest tag that has not been acknowledged
	ended map[uint64]bool // tags from base on that have ended; true: acknowledged by itself
	stuck time.Time       // since when base has not moved, while something has ended behind it
}

// ackChannel is an AMQP channel, but for tests.
type ackChannel interface {
	Ack(tag uint64, multiple bool) error
}

const (
	ackEvery = 10 * time.Millisecond // the wait for more
	ackStuck = time.Second           // then what has ended does not wait any more for one that has not
)

func newAcker(ch ackChannel) *acker {
	a := &acker{ch: ch, wake: make(chan struct{}, 1), quit: make(chan struct{}), base: 1, ended: make(map[uint64]bool), stuck: time.Now()}
	a.stopped.Go(a.run)
	return a
}

// settle acknowledges a delivery, soon.
func (a *acker) settle(tag uint64) {
	a.mu.Lock()
	a.ended[tag] = false
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// close tells the broker of all that has been settled, and returns the error that kept it from it.
func (a *acker) close() error {
	a.once.Do(func() { close(a.quit) })
	a.stopped.Wait()
	return a.err
}

func (a *acker) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	gathering := false // the timer is set to ackEvery, and others that end do not put it off
	for {
		select {
		case <-a.wake:
			if !gathering {
				gathering = true
				timer.Reset(ackEvery)
			}
		case <-timer.C:
			gathering = false
			held, err := a.tell(time.Now(), false)
			if err != nil {
				a.err = err // the channel is closed, and the broker delivers again
				return
			}
			if held {
				timer.Reset(ackStuck / 4)
			}
		case <-a.quit:
			_, a.err = a.tell(time.Now(), true)
			return
		}
	}
}

// tell acknowledges what has ended up to the first delivery that has not. What has ended behind that one is told one by one: when all must be told
// now, or when it has waited for long enough; held is whether some wait for that.
func (a *acker) tell(now time.Time, all bool) (held bool, err error) {
	upTo, multiple, single, held := a.next(now, all)
	if upTo > 0 {
		if err := a.ch.Ack(upTo, multiple); err != nil {
			return false, err
		}
	}
	for _, tag := range single {
		if err := a.ch.Ack(tag, false); err != nil {
			return false, err
		}
	}
	return held, nil
}

// next finds what to acknowledge: everything up to a tag (0: nothing), and single ones. multiple is whether more than one ends with upTo, held
// whether some that have ended are left for later.
func (a *acker) next(now time.Time, all bool) (upTo uint64, multiple bool, single []uint64, held bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		told, ended := a.ended[a.base]
		if !ended {
			break
		}
		delete(a.ended, a.base)
		if !told { // the broker knows only tags that it was not told of
			multiple = upTo > 0
			upTo = a.base
		}
		a.base++
		a.stuck = now
	}
	if len(a.ended) == 0 {
		a.stuck = now
	}
	tellNow := all || now.Sub(a.stuck) > ackStuck
	for tag, told := range a.ended {
		switch {
		case told:
		case tellNow:
			a.ended[tag] = true
			single = append(single, tag)
		default:
			held = true
		}
	}
	return upTo, multiple, single, held
}
