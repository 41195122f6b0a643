package discovery

import "github.com/prometheus/client_golang/prometheus"

// viewMetrics reads, when asked, what a view knows anyway. The service is a constant label, so that views of several services
// can stand in one registry.
type viewMetrics struct {
	view *View

	members, changes, info, panics, damped       *prometheus.Desc
	flaps, stale, outages, resets, held, rejects *prometheus.Desc
	failedChecks                                 *prometheus.Desc
}

// Metrics returns the metrics of the view and of what lies behind it: selvedge_ring_* and selvedge_discovery_*, labelled with the service.
func (v *View) Metrics() prometheus.Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("selvedge_"+name, help, labels, prometheus.Labels{"service": v.service})
	}
	return &viewMetrics{
		view:    v,
		members: desc("ring_members", "Members on the ring."),
		changes: desc("ring_changes_total", "Rings that have come into force."),
		info:    desc("ring_info", "1, labelled with the digest of the ring in force; equal digests mean equal rings.", "digest"),
		panics:  desc("ring_panic", "1 while so many members are critical that health is not believed and they stay in the ring."),
		damped:  desc("ring_damped", "Healthy members that wait outside the ring, since they have come back too often."),
		flaps:   desc("discovery_flaps_total", "Members that came back after they had been critical, missing or restarted."),
		stale:   desc("discovery_stale", "1 while the registry cannot be read and the last members stay in force."),
		outages: desc("discovery_outages_total", "Times that contact with the registry was lost."),
		resets:  desc("discovery_index_resets_total", "Times that Consul's index went backwards: its data are another's or older."),
		held:    desc("discovery_held", "Members that stay in the ring for a while after an outage, though Consul lost them or calls them critical."),
		rejects: desc("discovery_rejected_total", "Reports of members that made no ring; the last members stayed in force."),

		failedChecks: desc("discovery_check_failures_total", "Health checks of members that failed, those of Consul not among them.", "reason"),
	}
}

func (m *viewMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.members, m.changes, m.info, m.panics, m.damped,
		m.flaps, m.stale, m.outages, m.resets, m.held, m.rejects, m.failedChecks} {
		out <- d
	}
}

func (m *viewMetrics) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	snap := m.view.Snapshot()
	panics, damped := 0, 0
	for _, member := range snap.Members {
		switch member.Override {
		case Kept:
			panics = 1
		case Damped:
			damped++
		case NotOverridden:
		}
	}
	behind := troubleOf(m.view.src, m.view.service)
	stale := 0
	if behind.stale {
		stale = 1
	}
	gauge(m.members, snap.Ring.Len())
	counter(m.changes, m.view.RingChanges())
	gauge(m.info, 1, snap.Ring.Digest())
	gauge(m.panics, panics)
	gauge(m.damped, damped)
	counter(m.flaps, behind.flaps)
	gauge(m.stale, stale)
	counter(m.outages, behind.outages)
	counter(m.resets, behind.resets)
	gauge(m.held, behind.held)
	counter(m.rejects, m.view.rejected.Load())
	for reason, n := range behind.failedChecks {
		counter(m.failedChecks, n, checkFailure(reason).String())
	}
}
