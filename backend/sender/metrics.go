package sender

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/selvedge/selvedge/backend/pushv1"
)

// metrics holds the counters of one sender. All labels are there at zero from the start; none holds a user.
type metrics struct {
	pushes   *prometheus.CounterVec
	outcomes map[string]prometheus.Counter // of pushes, by label
	retries  prometheus.Counter
	seconds  prometheus.Histogram
	inFlight prometheus.Gauge
	registry *prometheus.Registry // nil: they are counted for nobody
}

// What a push ended as, the labels of selvedge_sender_pushes_total.
const (
	delivered = "delivered"
	offline   = "offline"
	failed    = "error"
)

func newMetrics(service string, registry *prometheus.Registry) (*metrics, error) {
	name := func(part, help string) prometheus.Opts {
		return prometheus.Opts{
			Namespace: "selvedge", Subsystem: "sender", Name: part, Help: help, ConstLabels: prometheus.Labels{"service": service},
		}
	}
	seconds := name("push_seconds", "Time from a push's call to its outcome, waiting in line and retries included; a push to many users counts once.")
	m := &metrics{
		pushes:  prometheus.NewCounterVec(prometheus.CounterOpts(name("pushes_total", "Pushes to one user each, by outcome.")), []string{"outcome"}),
		retries: prometheus.NewCounter(prometheus.CounterOpts(name("retries_total", "Calls to members that repeated one which had not settled."))),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: seconds.Namespace, Subsystem: seconds.Subsystem, Name: seconds.Name, Help: seconds.Help, ConstLabels: seconds.ConstLabels,
			Buckets: prometheus.ExponentialBuckets(0.0001, 3, 11),
		}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts(name("in_flight", "Calls under way; a push to many users counts once."))),
		outcomes: make(map[string]prometheus.Counter),
		registry: registry,
	}
	for _, outcome := range []string{delivered, offline, failed} {
		m.outcomes[outcome] = m.pushes.WithLabelValues(outcome)
	}
	if registry == nil {
		return m, nil
	}
	for i, c := range m.all() {
		if err := registry.Register(c); err != nil {
			for _, before := range m.all()[:i] {
				registry.Unregister(before)
			}
			var twice prometheus.AlreadyRegisteredError
			if errors.As(err, &twice) {
				return nil, errors.New("Metrics: another sender of this service counts there already; share that sender, or give each a registry")
			}
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.pushes, m.retries, m.seconds, m.inFlight}
}

// close takes the metrics out of the registry: another sender may count there.
func (m *metrics) close() {
	if m.registry == nil {
		return
	}
	for _, c := range m.all() {
		m.registry.Unregister(c)
	}
}

// began counts a call, and the function that it returns its end.
func (m *metrics) began() (ended func()) {
	start := time.Now()
	m.inFlight.Inc()
	return func() {
		m.inFlight.Dec()
		m.seconds.Observe(time.Since(start).Seconds())
	}
}

// pushed counts what became of a push to one user.
func (m *metrics) pushed(outcome pushv1.Outcome, isError bool) {
	label := offline
	if isError {
		label = failed
	} else if outcome == pushv1.Outcome_DELIVERED {
		label = delivered
	}
	m.outcomes[label].Inc()
}
