//go:build !linux

package bench

import (
	"errors"
	"time"
)

func sleepUntil(t time.Duration) { time.Sleep(t - monotonic()) }

// cpuTime needs Linux, as do the other measurements of processes.
func cpuTime(int) (time.Duration, error) { return 0, errors.ErrUnsupported }
