package backend

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/admin"
	"github.com/selvedge/selvedge/internal/homing"
)

// metrics holds the counters of one member. All labels are there at zero from the start; none holds a user.
type metrics struct {
	closes      *prometheus.CounterVec
	distrusts   *prometheus.CounterVec
	delivered   prometheus.Counter
	missed      prometheus.Counter // nobody was online
	failed      prometheus.Counter
	pushSeconds prometheus.Observer
	forwards    prometheus.Counter
	asks        prometheus.Counter
	moves       prometheus.Counter
	offline     prometheus.Counter
	deaths      *prometheus.CounterVec
	fences      prometheus.Counter
	stalls      prometheus.Counter
	outdated    prometheus.Counter
	queueBytes  prometheus.Gauge
	dropped     prometheus.Counter
}

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
	pushes := prometheus.NewCounterVec(prometheus.CounterOpts(name("pushes_total", "Pushes that senders sent to this member, by outcome.")),
		[]string{"outcome"})
	m := &metrics{
		delivered: pushes.WithLabelValues("delivered"), missed: pushes.WithLabelValues("offline"), failed: pushes.WithLabelValues("error"),
		closes: prometheus.NewCounterVec(prometheus.CounterOpts(name("session_closes_total", "Sessions ended, by reason.")),
			[]string{"reason"}),
		distrusts: prometheus.NewCounterVec(prometheus.CounterOpts(name("distrusts_total",
			"Requests refused since it could not be shown who they are from, by reason.")), []string{"reason"}),
		pushSeconds: seconds,
		forwards:    prometheus.NewCounter(prometheus.CounterOpts(name("forwards_total", "Pushes handed on to the user's home."))),
		asks:        prometheus.NewCounter(prometheus.CounterOpts(name("asks_total", "Questions put to other members about a push."))),
		moves:       prometheus.NewCounter(prometheus.CounterOpts(name("moves_total", "Sessions closed because their user moved."))),
		offline:     prometheus.NewCounter(prometheus.CounterOpts(name("offline_messages_total", "Messages handed to OnOffline since nobody was online."))),
		deaths: prometheus.NewCounterVec(prometheus.CounterOpts(name("peer_deaths_total", "Processes of other members held dead, by proof.")),
			[]string{"proof"}),
		fences:     prometheus.NewCounter(prometheus.CounterOpts(name("fences_total", "Times that this process closed all sessions, since others may have held it dead."))),
		stalls:     prometheus.NewCounter(prometheus.CounterOpts(name("stalls_total", "Times that this process stood still for two seconds or more."))),
		outdated:   prometheus.NewCounter(prometheus.CounterOpts(name("outdated_requests_total", "Questions of other members that came after their deadline."))),
		queueBytes: prometheus.NewGauge(prometheus.GaugeOpts(name("write_queue_bytes", "Bytes that wait for slow clients."))),
		dropped:    prometheus.NewCounter(prometheus.CounterOpts(name("dropped_messages_total", "Messages given up since a slow client's queue was full."))),
	}
	for reason := range closeReasons {
		m.closes.WithLabelValues(CloseReason(reason).String())
	}
	for _, reason := range distrusts() {
		m.distrusts.WithLabelValues(reason)
	}
	for death := homing.SaidGoodbye; death <= homing.Heard; death++ {
		m.deaths.WithLabelValues(death.String())
	}
	sessions := prometheus.NewGaugeFunc(prometheus.GaugeOpts(name("sessions", "Open sessions.")),
		func() float64 { return float64(b.table.len()) })
	toMove := prometheus.NewGaugeFunc(prometheus.GaugeOpts(name("sessions_to_move", "Sessions that are still here though their user moved.")),
		func() float64 { return float64(b.misplaced.Load()) })
	return m, register(registry, m.closes, m.distrusts, pushes, seconds, m.forwards, m.asks, m.moves, m.offline, m.deaths, m.fences, m.stalls, m.outdated, m.queueBytes, m.dropped,
		sessions, toMove, b.view.Metrics())
}

func register(registry *prometheus.Registry, collectors ...prometheus.Collector) error {
	for _, c := range collectors {
		if err := registry.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// pushes is how many senders sent to this member.
func (m *metrics) pushes() uint64 {
	return admin.Value(m.delivered) + admin.Value(m.missed) + admin.Value(m.failed)
}

func (m *metrics) push(outcome pushv1.Outcome, err error) {
	switch {
	case err != nil:
		m.failed.Inc()
	case outcome == pushv1.Outcome_DELIVERED:
		m.delivered.Inc()
	default:
		m.missed.Inc()
	}
}
