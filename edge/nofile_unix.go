//go:build unix

package edge

import "syscall"

// descriptorLimit is how many descriptors this process may have; 0: unknown. The Go runtime has raised the soft limit already.
func descriptorLimit() uint64 {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 0
	}
	return uint64(r.Cur) //nolint:unconvert // signed on some systems
}
