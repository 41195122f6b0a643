//go:build !linux

package backend

import (
	"time"

	"github.com/selvedge/selvedge/internal/homing"
)

var started = time.Now()

// bootClock reads Go's monotonic clock, which may stand still while the machine is suspended: a member of a machine that wakes up
// then finds out only from the others that its leases have lapsed.
func bootClock() homing.Instant { return homing.Instant(time.Since(started)) }
