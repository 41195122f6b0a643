package bridge

import (
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// acker acknowledges the deliveries of one AMQP channel, of which tags count from 1. Those that end within a moment go in one frame where
// no other is among them: a frame for each would cost the broker and this process more than the rest of the way.
type acker struct {
	ch interface {
		Ack(tag uint64, multiple bool) error
	}
	wake    chan struct{} // has a value when there is something to tell
	quit    chan struct{}
	stopped sync.WaitGroup
	once    sync.Once
	err     error // of the channel; read after stopped

	mu    sync.Mutex
	base  uint64          // the lowest tag that has not been acknowledged
	ended map[uint64]bool // tags from base on that have ended; true: acknowledged by itself
	stuck time.Time       // since when base has not moved
}

const (
	ackEvery = 10 * time.Millisecond // the wait for more
	ackStuck = time.Second           // then what has ended does not wait any more for one that has not
)

func newAcker(ch *amqp.Channel) *acker {
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
	for {
		select {
		case <-a.wake:
		case <-a.quit:
			a.err = a.tell(true)
			return
		}
		timer.Reset(ackEvery)
		select {
		case <-timer.C:
		case <-a.quit:
			a.err = a.tell(true)
			return
		}
		if a.err = a.tell(false); a.err != nil {
			return // the channel is closed, and the broker delivers again
		}
	}
}

// tell acknowledges what has ended up to the first delivery that has not. What has ended behind that one is told one by one: when all must be told
// now, or when it has waited for long enough.
func (a *acker) tell(all bool) error {
	upTo, multiple, single := a.next(time.Now(), all)
	if upTo > 0 {
		if err := a.ch.Ack(upTo, multiple); err != nil {
			return err
		}
	}
	for _, tag := range single {
		if err := a.ch.Ack(tag, false); err != nil {
			return err
		}
	}
	return nil
}

// next finds what to acknowledge: everything up to a tag (0: nothing), and single ones. multiple is whether more than one ends with upTo.
func (a *acker) next(now time.Time, all bool) (upTo uint64, multiple bool, single []uint64) {
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
	if all || now.Sub(a.stuck) > ackStuck {
		for tag, told := range a.ended {
			if !told {
				a.ended[tag] = true
				single = append(single, tag)
			}
		}
	}
	return upTo, multiple, single
}
