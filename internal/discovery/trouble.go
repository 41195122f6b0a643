package discovery

import "sync/atomic"

// trouble is what went wrong behind a source, for metrics.
type trouble struct {
	stale   bool   // what is in force is older than it should be: the registry cannot be read
	outages uint64 // times that this began
	resets  uint64 // times that Consul's index went backwards
	held    int    // members that stay as they were after an outage, whatever the registry says
	flaps   uint64 // members that were healthy, were not, and are again; by restarts, too

	failedChecks [checkFailures]uint64 // of our own health checks, by reason
}

// troubled is a source that can say what went wrong behind it.
type troubled interface {
	trouble(service string) trouble
}

// troubleOf is src's trouble; a source that cannot have any has none.
func troubleOf(src Source, service string) trouble {
	if t, ok := src.(troubled); ok {
		return t.trouble(service)
	}
	return trouble{}
}

// counters are one watch's trouble as it is counted: written by the goroutine that watches, read by anyone.
type counters struct {
	stale   atomic.Bool
	outages atomic.Uint64
	resets  atomic.Uint64
	held    atomic.Int64
	flaps   atomic.Uint64

	failedChecks [checkFailures]atomic.Uint64
}

// lost says that the registry cannot be read.
func (c *counters) lost() {
	if !c.stale.Swap(true) {
		c.outages.Add(1)
	}
}

func (c *counters) read() trouble {
	t := trouble{
		stale: c.stale.Load(), outages: c.outages.Load(), resets: c.resets.Load(), held: int(c.held.Load()), flaps: c.flaps.Load(),
	}
	for reason := range c.failedChecks {
		t.failedChecks[reason] = c.failedChecks[reason].Load()
	}
	return t
}
