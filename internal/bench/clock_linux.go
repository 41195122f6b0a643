package bench

import (
	"encoding/binary"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sleepUntil returns at t on the clock that monotonic reads, late by what the kernel takes to wake a thread.
func sleepUntil(t time.Duration) {
	if monotonic() >= t {
		return
	}
	at := unix.NsecToTimespec(int64(t))
	for unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &at, nil) == unix.EINTR {
	}
}

// ticker is a timer of the kernel. A Go timer of an idle process can be late by a millisecond, more than what is to be measured: its poller waits
// in whole milliseconds. One that sleeps in a system call takes a processor away from the Go scheduler, which costs it more than the sleeping.
type ticker struct {
	file *os.File
	raw  syscall.RawConn // its
	due  uint64          // ticks that have passed and nobody has waited for
}

// newTicker ticks at first on monotonic's clock, and then every interval.
func newTicker(first, interval time.Duration) (*ticker, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("timerfd_create: %w", err)
	}
	t := &ticker{file: os.NewFile(uintptr(fd), "timer")}
	if t.raw, err = t.file.SyscallConn(); err != nil {
		t.stop()
		return nil, err
	}
	at := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(first)), Interval: unix.NsecToTimespec(int64(interval))}
	if err := unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME, &at, nil); err != nil {
		t.stop()
		return nil, fmt.Errorf("timerfd_settime: %w", err)
	}
	return t, nil
}

// wait returns at the next tick that has not been waited for.
func (t *ticker) wait() error {
	if t.due == 0 {
		var ticks [8]byte
		// Past Go's scheduler: telling it of each read would be most of what waiting costs.
		var failed syscall.Errno
		err := t.raw.Read(func(fd uintptr) bool {
			_, _, failed = syscall.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&ticks)), unsafe.Sizeof(ticks))
			return failed != unix.EAGAIN
		})
		if err == nil && failed != 0 {
			err = os.NewSyscallError("read", failed)
		}
		if err != nil {
			return err
		}
		t.due = binary.NativeEndian.Uint64(ticks[:])
	}
	t.due--
	return nil
}

func (t *ticker) stop() { _ = t.file.Close() }

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
