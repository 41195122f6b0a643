package bench

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// sleepUntil returns at t on the clock that monotonic reads, late by what the kernel takes to wake a thread. A Go timer of an
// idle process can be late by a millisecond, more than what is to be measured: its poller waits in whole milliseconds.
func sleepUntil(t time.Duration) {
	if monotonic() >= t {
		return
	}
	at := unix.NsecToTimespec(int64(t))
	for unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &at, nil) == unix.EINTR {
	}
}

// cpuTime returns the processor time that all threads of a process have used since it started, those that have ended
// included: user and system. It is utime + stime of /proc/PID/stat, to the nanosecond instead of the hundredth of a second.
func cpuTime(pid int) (time.Duration, error) {
	const scheduler = 2 // CPUCLOCK_SCHED; see clock_getcpuclockid(3) and the kernel's posix-timers.h
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduler), &t); err != nil {
		return 0, fmt.Errorf("processor time of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}
