package edge

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/selvedge/selvedge/internal/config"
	"github.com/selvedge/selvedge/internal/tunnel"
)

// AccessLog is where a line is written for each session and request, at its end, as an object of JSON. The zero value writes none.
type AccessLog struct {
	Path   string  // of a file, which is made and appended to, or "stdout"; "": no log
	Sample float64 // share of sessions and requests, by chance, that have a line: above 0, to 1; 0: all
}

func (a AccessLog) check() error {
	if !(a.Sample >= 0 && a.Sample <= 1) { // NaN, too
		return config.Wrongf("sample", "%v: want a share above 0, up to 1 (all)", a.Sample)
	}
	if a.Path == "" && a.Sample != 0 {
		return config.Wrongf("path", "needed, since sample is set: name a file, or stdout")
	}
	return nil
}

// accessLog is an AccessLog at work; nil where there is none.
type accessLog struct {
	file   *logFile
	log    *zap.Logger
	sample float64
}

func newAccessLog(cfg AccessLog, log *zap.Logger, lost prometheus.Counter) *accessLog {
	if cfg.Path == "" {
		return nil
	}
	l := &accessLog{file: newLogFile(cfg.Path, log, lost), sample: cfg.Sample}
	if l.sample == 0 {
		l.sample = 1
	}
	encoder := zapcore.NewJSONEncoder(zapcore.EncoderConfig{
		MessageKey: "kind", TimeKey: "time", EncodeTime: zapcore.RFC3339NanoTimeEncoder, EncodeDuration: zapcore.SecondsDurationEncoder,
	})
	l.log = zap.New(zapcore.NewCore(encoder, l.file, zapcore.InfoLevel))
	return l
}

func (l *accessLog) open() error {
	if l == nil {
		return nil
	}
	return l.file.open()
}

func (l *accessLog) close() {
	if l != nil {
		l.file.close()
	}
}

// ReopenLogs has the access log go on in the file that its path names by now, for tools that rotate logs by renaming. With an error it
// goes on in the old one.
func (e *Edge) ReopenLogs() error {
	if e.access == nil {
		return nil
	}
	return e.access.file.reopen()
}

// takes decides whether a request is one of those that have a line.
func (l *accessLog) takes() bool {
	return l != nil && (l.sample == 1 || rand.Float64() < l.sample)
}

// ended writes the line of a request, or of an upgrade that has not become a session.
func (l *accessLog) ended(x *exchange, status int, fromClient, toClient int64) {
	if !x.logged {
		return
	}
	line := x.line(status)
	line.fromClient, line.toClient = fromClient, toClient
	l.write(line)
}

// session returns what the relay is to call at the end of the session that x has become: ended, and before it what writes the line. A
// session holds nothing for that where it has none.
func (l *accessLog) session(x *exchange, ended func(tunnel.Summary)) func(tunnel.Summary) {
	if !x.logged {
		return ended
	}
	line := x.line(101).apart()
	line.kind = "session"
	return func(sum tunnel.Summary) {
		line.reason, line.fromClient, line.toClient = sum.Reason.String(), sum.ToBackend, sum.ToClient
		l.write(line) // first: after the last session has ended the log is closed
		ended(sum)
	}
}

func (l *accessLog) write(line *logLine) { l.log.Info(line.kind, zap.Inline(line)) }

// logLine is what is said of a session or a request. There is no query in it, which holds secrets, and no user id.
type logLine struct {
	kind                 string
	started              time.Time
	id, service, backend string
	user                 string // hash
	client               netip.Addr
	method, host, path   string
	status               int
	reason               string // why a session has ended, or a request has failed
	upstream             time.Duration
	fromClient, toClient int64 // bytes of the tunnel, or of bodies
}

// logTextBytes bounds what a client can put into a line.
const logTextBytes = 1024

// line is what there is to say of x so far.
func (x *exchange) line(status int) *logLine {
	l := &logLine{kind: "request", started: x.started, id: x.id, service: x.service(), backend: x.backend, client: x.head.Client,
		method: x.head.Method, host: x.head.Host, path: x.head.Path, status: status, reason: string(x.refused), upstream: x.upstream}
	if x.upgrade {
		l.kind = "upgrade"
	}
	if x.upstream == 0 && !x.asked.IsZero() {
		l.upstream = time.Since(x.asked) // in vain
	}
	if x.route != nil && x.route.userInPath {
		l.path = x.route.path + "..."
	}
	if x.user != "" {
		l.user = fmt.Sprintf("%016x", x.route.service.view.Snapshot().Ring.Hash(x.user))
	}
	return l
}

// apart returns l, which does not hold on to the request's head any more.
func (l *logLine) apart() *logLine {
	for _, s := range []*string{&l.id, &l.method, &l.host, &l.path} {
		*s = strings.Clone(clip(*s))
	}
	return l
}

func clip(s string) string { return s[:min(len(s), logTextBytes)] }

// MarshalLogObject writes the fields; those that are not known are left out. Times are in seconds.
func (l *logLine) MarshalLogObject(to zapcore.ObjectEncoder) error {
	to.AddString("request_id", l.id)
	for _, f := range []struct{ name, value string }{
		{"service", l.service}, {"backend", l.backend}, {"user", l.user}, {"method", clip(l.method)}, {"host", clip(l.host)}, {"path", clip(l.path)},
	} {
		if f.value != "" {
			to.AddString(f.name, f.value)
		}
	}
	if l.client.IsValid() {
		to.AddString("client", l.client.String())
	}
	to.AddInt("status", l.status)
	if l.reason != "" {
		to.AddString("reason", l.reason)
	}
	to.AddDuration("seconds", time.Since(l.started))
	if l.backend != "" {
		to.AddDuration("upstream_seconds", l.upstream)
	}
	to.AddInt64("bytes_from_client", l.fromClient)
	to.AddInt64("bytes_to_client", l.toClient)
	return nil
}
