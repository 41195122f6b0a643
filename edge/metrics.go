package edge

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/selvedge/selvedge/internal/tunnel"
)

// metrics are the edge's own, apart from those of services. Labels are bounded: services and reasons come from the configuration and
// the code, status codes are folded by codeLabel.
type metrics struct {
	registry *prometheus.Registry

	refusals     *prometheus.CounterVec // reason
	acceptErrors *prometheus.CounterVec // reason
	handovers    prometheus.Counter
	upgrades     *prometheus.CounterVec // service, code
	upgradeTime  *prometheus.HistogramVec
	requests     *prometheus.CounterVec // service, code
	closes       *prometheus.CounterVec // service, reason
	dialFailures *prometheus.CounterVec // service
	ejections    *prometheus.CounterVec // service
	logLost      prometheus.Counter
}

// codes are those that an upgrade or a request is counted under by themselves; the rest is counted by class.
var codes = []int{101, 200, 204, 206, 301, 302, 304, 307, 308, 400, 401, 403, 404, 413, 426, 429, 431, statusClientGone, 500, 502, 503, 504}

// upgradeCodes are the outcomes of upgrades that are there at zero from the start.
var upgradeCodes = []int{101, 400, 401, 403, 404, 426, 429, 431, statusClientGone, 502, 503, 504}

// requestCodes are the same of plain requests.
var requestCodes = []int{200, 400, 401, 403, 404, 413, 429, 431, statusClientGone, 502, 503, 504}

// codeLabel keeps a backend from making labels up.
func codeLabel(code int) string {
	for _, c := range codes {
		if c == code {
			return strconv.Itoa(code)
		}
	}
	return strconv.Itoa(code/100) + "xx"
}

func newMetrics(e *Edge) (*metrics, error) {
	m := &metrics{
		registry: e.cfg.Metrics,
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "selvedge_edge_refusals_total",
			Help: "Requests and upgrades that the edge itself refused."}, []string{"reason"}),
		acceptErrors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "selvedge_edge_accept_errors_total",
			Help: "Failures to accept a connection; each is retried after a pause."}, []string{"reason"}),
		handovers: prometheus.NewCounter(prometheus.CounterOpts{Name: "selvedge_edge_handovers_total",
			Help: "Connections that the reactor has left to net/http: plain HTTP, and upgrades that are odd or do not succeed."}),
		upgrades: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "selvedge_edge_upgrades_total",
			Help: "Upgrade requests by the status they were answered with; service is empty where no route was found."},
			[]string{"service", "code"}),
		upgradeTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "selvedge_edge_upgrade_seconds",
			Help:    "From an upgrade request's head to its 101.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}}, []string{"service"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "selvedge_edge_requests_total",
			Help: "Plain HTTP requests by the status they were answered with."}, []string{"service", "code"}),
		closes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "selvedge_edge_session_closes_total",
			Help: "Sessions that ended."}, []string{"service", "reason"}),
		dialFailures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "selvedge_edge_dial_failures_total",
			Help: "Attempts to connect to a member that failed."}, []string{"service"}),
		ejections: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "selvedge_edge_ejections_total",
			Help: "Times that a member which did not answer was avoided for a while."}, []string{"service"}),
	}
	m.logLost = prometheus.NewCounter(prometheus.CounterOpts{Name: "selvedge_edge_access_log_lost_total",
		Help: "Lines of the access log that could not be written, or found too many waiting."})
	for _, r := range reasons {
		m.refusals.WithLabelValues(string(r))
	}
	for _, r := range acceptReasons {
		m.acceptErrors.WithLabelValues(r)
	}
	for _, code := range []int{400, 404, 431, 503} { // decided before there is a service
		m.upgrades.WithLabelValues("", strconv.Itoa(code))
		m.requests.WithLabelValues("", strconv.Itoa(code))
	}
	collectors := []prometheus.Collector{m.refusals, m.acceptErrors, m.handovers, m.upgrades, m.upgradeTime, m.requests, m.closes, m.dialFailures,
		m.ejections, m.logLost, (*liveMetrics)(e)}
	for _, c := range collectors {
		if err := m.registry.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// add has a service's metrics there from the start, at zero, and gives it those that it counts by itself.
func (m *metrics) add(p *pool) error {
	if err := m.registry.Register(p.view.Metrics()); err != nil {
		return err
	}
	p.dialFailures = m.dialFailures.WithLabelValues(p.name)
	p.outliers.ejections = m.ejections.WithLabelValues(p.name)
	p.upgradeTime = m.upgradeTime.WithLabelValues(p.name)
	p.upgrades = m.upgrades.WithLabelValues(p.name, strconv.Itoa(http.StatusSwitchingProtocols))
	for _, code := range upgradeCodes {
		m.upgrades.WithLabelValues(p.name, strconv.Itoa(code))
	}
	for _, code := range requestCodes {
		m.requests.WithLabelValues(p.name, strconv.Itoa(code))
	}
	for _, r := range tunnel.Reasons() {
		m.closes.WithLabelValues(p.name, r.String())
	}
	return nil
}

// forget takes the view of a service that is not followed any more away; what was counted stays.
func (m *metrics) forget(p *pool) { m.registry.Unregister(p.view.Metrics()) }

var (
	sessionsDesc = prometheus.NewDesc("selvedge_edge_sessions", "Sessions that are open.", []string{"service"}, nil)
	limitDesc    = prometheus.NewDesc("selvedge_edge_sessions_limit", "Most sessions that the edge takes at once.", nil, nil)
	bytesDesc    = prometheus.NewDesc("selvedge_edge_tunnel_bytes_total", "Bytes moved between clients and backends.",
		[]string{"direction", "engine"}, nil)
	toMoveDesc = prometheus.NewDesc("selvedge_edge_sessions_to_move", "Sessions that are still open though their user moved, of services whose on_move is close.",
		[]string{"service"}, nil)
	ejectedDesc = prometheus.NewDesc("selvedge_edge_ejected", "Members that are avoided since they do not answer.", []string{"service"}, nil)
)

// liveMetrics reads, when asked, what is counted elsewhere anyway.
type liveMetrics Edge

func (l *liveMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{sessionsDesc, limitDesc, bytesDesc, toMoveDesc, ejectedDesc} {
		ch <- d
	}
}

func (l *liveMetrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(limitDesc, l.sessions.most())
	for name, p := range (*Edge)(l).followed() {
		gauge(sessionsDesc, int(p.open.Load()), name)
		gauge(toMoveDesc, int(p.toMove.Load()), name)
		gauge(ejectedDesc, p.outliers.ejected(), name)
	}
	var moved tunnel.Counters
	if relay := l.relay.Load(); relay != nil {
		moved = relay.Counters()
	}
	counter(bytesDesc, moved.ToBackendCopied, "to_backend", "copy")
	counter(bytesDesc, moved.ToBackendSpliced, "to_backend", "splice")
	counter(bytesDesc, moved.ToClientCopied, "to_client", "copy")
	counter(bytesDesc, moved.ToClientSpliced, "to_client", "splice")
}

// upgraded is [metrics.upgraded] for a 101.
func (p *pool) upgraded(started time.Time) {
	p.upgrades.Inc()
	p.upgradeTime.Observe(time.Since(started).Seconds())
}

// upgraded counts one upgrade request by its outcome.
func (m *metrics) upgraded(service string, code int, started time.Time) {
	m.upgrades.WithLabelValues(service, codeLabel(code)).Inc()
	if code == 101 {
		m.upgradeTime.WithLabelValues(service).Observe(time.Since(started).Seconds())
	}
}
