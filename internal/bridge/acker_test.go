package bridge

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// brokerTags is what RabbitMQ knows of a channel's deliveries: it closes the channel where it is told of one that is not outstanding.
type brokerTags struct {
	mu          sync.Mutex
	outstanding map[uint64]bool
	frames      int
}

func (b *brokerTags) Ack(tag uint64, multiple bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.frames++
	if !b.outstanding[tag] {
		return errors.New("unknown delivery tag")
	}
	maps.DeleteFunc(b.outstanding, func(other uint64, _ bool) bool { return other == tag || multiple && other < tag })
	return nil
}

// seen returns how many deliveries are outstanding, and how many frames came.
func (b *brokerTags) seen() (outstanding, frames int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.outstanding), b.frames
}

func newTestAcker(deliveries int) (*acker, *brokerTags) {
	tags := &brokerTags{outstanding: make(map[uint64]bool)}
	for tag := range uint64(deliveries) {
		tags.outstanding[tag+1] = true
	}
	return newAcker(tags), tags
}

// Whatever the order in which deliveries end and the broker is told: it hears of exactly those that have ended.
func TestAckerTellsTheTruth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const deliveries = 40
		a, tags := newTestAcker(deliveries)
		defer func() { _ = a.close() }()
		order := rapid.Permutation(slices.Sorted(maps.Keys(tags.outstanding))).Draw(t, "order")
		order = order[:rapid.IntRange(0, deliveries).Draw(t, "ended")]
		ended := make(map[uint64]bool)
		now := time.Now()
		for _, tag := range order {
			a.mu.Lock()
			a.ended[tag] = false
			a.mu.Unlock()
			ended[tag] = true
			if rapid.Bool().Draw(t, "tell") {
				now = now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
				if _, err := a.tell(now, rapid.IntRange(0, 5).Draw(t, "all") == 0); err != nil {
					t.Fatal(err)
				}
				for tag := range ended {
					if tags.outstanding[tag] && !a.isHeldBack(tag) {
						t.Fatalf("%d has ended, and nobody will say so", tag)
					}
				}
			}
		}
		if _, err := a.tell(now, true); err != nil {
			t.Fatal(err)
		}
		for tag := range uint64(deliveries) {
			if tags.outstanding[tag+1] == ended[tag+1] {
				t.Fatalf("delivery %d: ended %v, outstanding %v", tag+1, ended[tag+1], tags.outstanding[tag+1])
			}
		}
	})
}

func (a *acker) isHeldBack(tag uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	told, held := a.ended[tag]
	return held && !told
}

// A thousand deliveries that end within moments are told in a few frames; one that hangs holds the others up for a second at most.
func TestAckerGathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, tags := newTestAcker(1001)
		for tag := uint64(1); tag <= 500; tag++ {
			a.settle(tag)
		}
		time.Sleep(2 * ackEvery)
		if outstanding, frames := tags.seen(); frames > 3 || outstanding != 501 {
			t.Errorf("%d frames for 500, %d outstanding", frames, outstanding)
		}
		for tag := uint64(502); tag <= 1001; tag++ { // all but 501
			a.settle(tag)
		}
		time.Sleep(ackStuck / 2)
		if outstanding, _ := tags.seen(); outstanding != 501 {
			t.Errorf("%d outstanding: what stands behind one that hangs is not told one by one so soon", outstanding)
		}
		time.Sleep(ackStuck)
		if outstanding, _ := tags.seen(); outstanding != 1 {
			t.Errorf("%d outstanding, want the one that hangs", outstanding)
		}
		a.settle(501)
		err := a.close()
		if outstanding, _ := tags.seen(); err != nil || outstanding != 0 {
			t.Errorf("%v, %d outstanding", err, outstanding)
		}
	})
}

// A steady stream of ends does not put the telling off.
func TestAckerIsNotPutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, tags := newTestAcker(200)
		for tag := uint64(1); tag <= 200; tag++ {
			a.settle(tag)
			time.Sleep(ackEvery / 5)
		}
		if outstanding, frames := tags.seen(); outstanding > 10 || frames < 20 || frames > 60 {
			t.Errorf("%d outstanding after %d frames", outstanding, frames)
		}
		if err := a.close(); err != nil {
			t.Error(err)
		}
	})
}
