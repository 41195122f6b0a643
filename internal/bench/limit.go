package bench

import "syscall"

// descriptorLimit is how many descriptors a process may have. The Go runtime has raised the soft limit to the hard one already.
func descriptorLimit() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 1024 // what POSIX systems start with
	}
	return int(min(r.Cur, 1<<20))
}

// sessionsPerProxy is how many sessions a proxy is given at most: two descriptors each, and a fifth of them kept free.
func sessionsPerProxy(limit int) int { return limit * 4 / 5 / 2 }

// sessionsPerProcess is the same for a process with one descriptor per session: a client process, or a backend, to whom the
// ring may give more than the average.
func sessionsPerProcess(limit int) int { return limit * 3 / 5 }
