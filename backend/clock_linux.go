package backend

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvedge/selvedge/internal/homing"
)

// bootClock reads a clock that runs on while the machine is suspended: leases must lapse meanwhile.
func bootClock() homing.Instant {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("clock_gettime(CLOCK_BOOTTIME): " + err.Error()) // since Linux 2.6.39 it has no way to fail
	}
	return homing.Instant(time.Duration(t.Nano()))
}
