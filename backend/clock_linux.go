package backend

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/selvedge/selvedge/internal/homing"
)

// bootClock reads a clock that runs on while the machine is suspended: leases must lapse meanwhile.
func bootClock() homing.Instant {
	var t unix.Timespec
	// Past Go's scheduler, with each push: being told of a system call it wakes its monitor, a thread that looks every 20 us
	// until the process rests. In a process that is woken now and then this was a fourth of what it took.
	if _, _, err := syscall.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&t)), 0); err != 0 {
		panic("clock_gettime(CLOCK_BOOTTIME): " + err.Error()) // since Linux 2.6.39 it has no way to fail
	}
	return homing.Instant(time.Duration(t.Nano()))
}
