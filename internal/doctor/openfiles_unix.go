//go:build unix

package doctor

import (
	"fmt"
	"math"
	"syscall"
)

// openFiles is this process' limit, which Go raises to the most that the user may have.
func openFiles() (int, error) {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 0, fmt.Errorf("getrlimit: %w", err)
	}
	if uint64(r.Cur) > math.MaxInt32 { //nolint:unconvert // signed on some systems
		return 0, nil
	}
	return int(r.Cur), nil
}
