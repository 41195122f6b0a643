//go:build unix && !linux

package reactor

// newSystemPoller makes the poller that New uses.
func newSystemPoller() (poller, error) { return newPollPoller() }
