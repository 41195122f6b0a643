package bridge

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// outcome is what became of a message, the label of selvedge_bridge_messages_total.
type outcome string

const (
	delivered outcome = "delivered" // at least one session has it, and every user's outcome is certain
	offline   outcome = "offline"   // no session was there to have it, for certain
	parked    outcome = "parked"    // for one of its users at least; the broker keeps it
	dropped   outcome = "dropped"   // the same, and the broker keeps nothing
	returned  outcome = "returned"  // left to the broker, which delivers it again, as the bridge stops; from pub/sub it is lost
)

// metrics holds the counters of one bridge. All labels are there at zero from the start.
type metrics struct {
	messages   *prometheus.CounterVec
	aside      *prometheus.CounterVec
	seconds    prometheus.Histogram
	inFlight   prometheus.Gauge
	retries    prometheus.Counter
	redelivers prometheus.Counter
	unnamed    prometheus.Counter
	connected  prometheus.Gauge
	losses     prometheus.Counter
	lost       *prometheus.CounterVec
}

// lossReason is why a message was lost before the bridge had it, the label of selvedge_bridge_lost_total. What is published while nobody listens
// is lost without anybody knowing.
type lossReason string

const (
	trimmed    lossReason = "trimmed"    // a Redis stream was cut to its length before the entry was delivered
	overflowed lossReason = "overflowed" // core NATS sent faster than messages got their outcomes
)

func newMetrics(service, source string, registry *prometheus.Registry) (*metrics, error) {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{
			Namespace: "selvedge", Subsystem: "bridge", Name: name, Help: help,
			ConstLabels: prometheus.Labels{"service": service, "source": source},
		}
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts(opts(name, help)))
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts(opts(name, help)))
	}
	seconds := opts("message_seconds", "Time from a message's arrival here to its outcome.")
	m := &metrics{
		messages: prometheus.NewCounterVec(prometheus.CounterOpts(opts("messages_total", "Messages by what became of them.")), []string{"outcome"}),
		aside: prometheus.NewCounterVec(prometheus.CounterOpts(opts("put_aside_total",
			"Messages, or one user's part of one, that were parked or kept as dead letters; dropped where the broker keeps nothing.")), []string{"reason"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: seconds.Namespace, Subsystem: seconds.Subsystem, Name: seconds.Name, Help: seconds.Help, ConstLabels: seconds.ConstLabels,
			Buckets: prometheus.ExponentialBuckets(0.0005, 3, 12),
		}),
		inFlight:   gauge("in_flight", "Messages taken from the broker that have no outcome yet."),
		retries:    counter("retries_total", "Tries of messages after their first."),
		redelivers: counter("redeliveries_total", "Messages that the broker says it had delivered before."),
		unnamed:    counter("unnamed_total", "Messages without an id that lasts: delivered again, sessions would get them again."),
		connected:  gauge("connected", "1 while the broker is being read."),
		losses:     counter("connection_losses_total", "Times that the broker was not, or no longer, to be read."),
	}
	m.lost = prometheus.NewCounterVec(prometheus.CounterOpts(opts("lost_total", "Messages that are known to be lost, by how.")), []string{"reason"})
	for _, r := range []lossReason{trimmed, overflowed} {
		m.lost.WithLabelValues(string(r))
	}
	for _, o := range []outcome{delivered, offline, parked, dropped, returned} {
		m.messages.WithLabelValues(string(o))
	}
	for _, r := range reasons {
		m.aside.WithLabelValues(string(r))
	}
	for _, c := range []prometheus.Collector{
		m.messages, m.aside, m.seconds, m.inFlight, m.retries, m.redelivers, m.unnamed, m.connected, m.losses, m.lost,
	} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// ended counts the end of a message that was in flight for so long.
func (m *metrics) ended(o outcome, after time.Duration) {
	m.inFlight.Dec()
	m.messages.WithLabelValues(string(o)).Inc()
	m.seconds.Observe(after.Seconds())
}

func (m *metrics) putAside(r reason) { m.aside.WithLabelValues(string(r)).Inc() }
