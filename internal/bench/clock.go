package bench

import (
	"time"

	"golang.org/x/sys/unix"
)

// monotonic is a clock that all processes of the machine share and nobody sets.
func monotonic() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // the clock exists everywhere that this compiles
	}
	return time.Duration(t.Nano())
}
