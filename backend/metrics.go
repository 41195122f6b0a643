package backend

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/selvedge/selvedge/backend/pushv1"
)

// metrics holds the counters of one member. All labels are there at zero from the start; none holds a user.
type metrics struct {
	closes      *prometheus.CounterVec
	pushes      *prometheus.CounterVec
	pushSeconds prometheus.Observer
	forwards    prometheus.Counter
	asks        prometheus.Counter
	moves       prometheus.Counter
	queueBytes  prometheus.Gauge
}

// outcomes are the labels of selvedge_backend_pushes_total: what a push ended as.
var outcomes = []string{"delivered", "offline", "error"}

func newMetrics(b *Backend, registry *prometheus.Registry) (*metrics, error) {
	labels := prometheus.Labels{"service": b.cfg.Service}
	name := func(part, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "selvedge", Subsystem: "backend", Name: part, Help: help, ConstLabels: labels}
	}
	seconds := prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "selvedge", Subsystem: "backend", Name: "push_seconds", ConstLabels: labels,
		Help:    "Time from a push's arrival at this member to its outcome.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 3, 11),
	})
	m := &metrics{
		closes: prometheus.NewCounterVec(prometheus.CounterOpts(name("session_closes_total", "Sessions ended, by reason.")),
			[]string{"reason"}),
		pushes: prometheus.NewCounterVec(prometheus.CounterOpts(name("pushes_total", "Pushes that senders sent to this member, by outcome.")),
			[]string{"outcome"}),
		pushSeconds: seconds,
		forwards:    prometheus.NewCounter(prometheus.CounterOpts(name("forwards_total", "Pushes handed on to the user's home."))),
		asks:        prometheus.NewCounter(prometheus.CounterOpts(name("asks_total", "Questions put to other members about a push."))),
		moves:       prometheus.NewCounter(prometheus.CounterOpts(name("moves_total", "Sessions closed because their user moved."))),
		queueBytes:  prometheus.NewGauge(prometheus.GaugeOpts(name("write_queue_bytes", "Bytes that wait for slow clients."))),
	}
	for reason := range closeReasons {
		m.closes.WithLabelValues(CloseReason(reason).String())
	}
	for _, outcome := range outcomes {
		m.pushes.WithLabelValues(outcome)
	}
	sessions := prometheus.NewGaugeFunc(prometheus.GaugeOpts(name("sessions", "Open sessions.")),
		func() float64 { return float64(b.table.len()) })
	return m, register(registry, m.closes, m.pushes, seconds, m.forwards, m.asks, m.moves, m.queueBytes, sessions,
		&ringCollector{backend: b, labels: labels})
}

func register(registry *prometheus.Registry, collectors ...prometheus.Collector) error {
	for _, c := range collectors {
		if err := registry.Register(c); err != nil {
			return err
		}
	}
	return nil
}

func (m *metrics) push(outcome pushv1.Outcome, err error) {
	switch {
	case err != nil:
		m.pushes.WithLabelValues("error").Inc()
	case outcome == pushv1.Outcome_DELIVERED:
		m.pushes.WithLabelValues("delivered").Inc()
	default:
		m.pushes.WithLabelValues("offline").Inc()
	}
}

// ringCollector reports the ring by which this member decides, read at scrape time.
type ringCollector struct {
	backend *Backend
	labels  prometheus.Labels
	once    sync.Once
	members *prometheus.Desc
	changes *prometheus.Desc
	info    *prometheus.Desc
}

func (c *ringCollector) describe() {
	c.members = prometheus.NewDesc("selvedge_ring_members", "Members on the ring.", nil, c.labels)
	c.changes = prometheus.NewDesc("selvedge_ring_changes_total", "Rings that came into force.", nil, c.labels)
	c.info = prometheus.NewDesc("selvedge_ring_info", "The ring in force; equal digests mean equal rings.", []string{"digest"}, c.labels)
}

func (c *ringCollector) Describe(out chan<- *prometheus.Desc) {
	c.once.Do(c.describe)
	out <- c.members
	out <- c.changes
	out <- c.info
}

func (c *ringCollector) Collect(out chan<- prometheus.Metric) {
	c.once.Do(c.describe)
	ring := c.backend.view.Snapshot().Ring
	out <- prometheus.MustNewConstMetric(c.members, prometheus.GaugeValue, float64(ring.Len()))
	out <- prometheus.MustNewConstMetric(c.changes, prometheus.CounterValue, float64(c.backend.view.RingChanges()))
	out <- prometheus.MustNewConstMetric(c.info, prometheus.GaugeValue, 1, ring.Digest())
}
