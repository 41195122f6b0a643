package edge

import (
	"runtime"
	"testing"

	"github.com/selvedge/selvedge/internal/testkit"
)

// A burst is tidied up after once it is over, and nothing happens without one.
func TestTidy(t *testing.T) {
	e := start(t, Config{Membership: members(deadAddr(t))})
	forced := func() uint32 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.NumForcedGC
	}
	before := forced()
	for range tidyAfter - 1 {
		e.tidy.upgraded()
	}
	if len(e.tidy.nudge) != 0 {
		t.Error("woken before there was much to tidy")
	}
	e.tidy.upgraded()
	testkit.Eventually(t, patience, func() bool { return forced() > before }, "memory is given back")
}
