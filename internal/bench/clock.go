package bench

import (
	"time"

	"golang.org/x/sys/unix"
)

// began is one moment on Go's clock and on the kernel's. Both run alike; Go's is read without a system call, of which the scheduler
// would be told: that wakes a thread of its own, several times per message.
var began, beganAt = func() (time.Time, time.Duration) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // the clock exists everywhere that this compiles
	}
	return time.Now(), time.Duration(t.Nano())
}()

// monotonic is a clock that all processes of the machine share and nobody sets, CLOCK_MONOTONIC.
func monotonic() time.Duration { return beganAt + time.Since(began) }
