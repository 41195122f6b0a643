//go:build !linux

package bench

import (
	"errors"
	"time"
)

func sleepUntil(t time.Duration) { time.Sleep(t - monotonic()) }

type ticker struct{ next, interval time.Duration }

func newTicker(first, interval time.Duration) (*ticker, error) { return &ticker{first, interval}, nil }

func (t *ticker) wait() error {
	time.Sleep(t.next - monotonic())
	t.next += t.interval
	return nil
}

func (t *ticker) stop() {}

// cpuTime needs Linux, as do the other measurements of processes.
func cpuTime(int) (time.Duration, error) { return 0, errors.ErrUnsupported }
