package config

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

const (
	// reloadQuiet is how long a file must not have been touched before it is read, so that one that is written in place is not read
	// half written; at reloadLatest it is read all the same.
	reloadQuiet  = 100 * time.Millisecond
	reloadLatest = 400 * time.Millisecond
	// reloadPoll finds what no notification tells: file systems of a network, a link whose target lies in another folder.
	reloadPoll = 5 * time.Second
)

// refer notes the files that v names, in fields with the tag `is:"file"`, before anybody reads them: a change of one is a change of the
// configuration, see [Reloader].
func (s *Settings) refer(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			s.refer(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			s.refer(v.Index(i))
		}
	case reflect.Map:
		for _, value := range v.Seq2() {
			s.refer(value)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			if path := v.Field(i); field.Tag.Get("is") == "file" && path.String() != "" {
				s.seen[path.String()] = digest(path.String())
			} else if field.IsExported() {
				s.refer(path)
			}
		}
	}
}

// Reloader brings changes of the configuration into a running process: when it is told to (SIGHUP), and when the file or one that it
// names (tokens, keys, certificates) has other content than before. Kubernetes, which swaps a link in the folder, is seen, too.
type Reloader struct {
	// Hangup, where it is set before Run, is called at each signal, whatever comes of the reload: log files are opened anew there.
	Hangup func()
	// Begin and End, where they are set before Run, are called around each reload.
	Begin, End func()

	load func() (*Settings, error)
	log  *zap.Logger
	seen map[string]content // the files, as they were when they were read last

	reloads *prometheus.CounterVec // result
	success prometheus.Gauge
	when    prometheus.Gauge
}

// NewReloader returns a reloader for a process that runs by the settings first. load reads the sources again and puts them in force, or
// leaves everything as it is: then its error says why, and the settings, if they could be read so far, which files were concerned. metrics get selvedge_PROCESS_config_*.
func NewReloader(process string, first *Settings, load func() (*Settings, error), metrics prometheus.Registerer, log *zap.Logger) (*Reloader, error) {
	name := "selvedge_" + process + "_config_"
	r := &Reloader{
		load: load,
		log:  log,
		seen: first.seen,
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{Name: name + "reloads_total",
			Help: "Reloads of the configuration."}, []string{"result"}),
		success: prometheus.NewGauge(prometheus.GaugeOpts{Name: name + "last_reload_success",
			Help: "1 while what was read last is in force, 0 while it is broken and an older one stays."}),
		when: prometheus.NewGauge(prometheus.GaugeOpts{Name: name + "last_reload_success_timestamp_seconds",
			Help: "When the configuration in force was read."}),
	}
	for _, c := range []prometheus.Collector{r.reloads, r.success, r.when} {
		if err := metrics.Register(c); err != nil {
			return nil, fmt.Errorf("config: %w", err)
		}
	}
	for _, result := range []string{"ok", "failed"} {
		r.reloads.WithLabelValues(result)
	}
	r.success.Set(1)
	r.when.SetToCurrentTime()
	return r, nil
}

// Run reloads until ctx ends: at each signal, and at each change of the files.
func (r *Reloader) Run(ctx context.Context, hangups <-chan os.Signal) {
	poll := time.NewTicker(reloadPoll)
	defer poll.Stop()
	for ctx.Err() == nil {
		changed, stop := r.notify()
		r.until(ctx, hangups, changed, poll.C)
		stop()
	}
}

// until waits for one reload, or for ctx. Afterwards other files may be concerned.
func (r *Reloader) until(ctx context.Context, hangups <-chan os.Signal, changed <-chan struct{}, poll <-chan time.Time) {
	var quiet, latest <-chan time.Time
	if !maps.Equal(r.seen, r.look()) { // between two watches
		quiet = time.After(reloadQuiet)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			if r.Hangup != nil {
				r.Hangup()
			}
			r.reload("a signal", r.look())
			return
		case <-changed:
			quiet = time.After(reloadQuiet)
			if latest == nil {
				latest = time.After(reloadLatest)
			}
			continue
		case <-quiet:
		case <-latest:
		case <-poll:
		}
		quiet, latest = nil, nil
		if now := r.look(); !maps.Equal(r.seen, now) {
			r.reload("a change of the files", now)
			return
		}
	}
}

// reload is called with what the files were before.
func (r *Reloader) reload(cause string, before map[string]content) {
	if r.Begin != nil {
		r.Begin()
	}
	if r.End != nil {
		defer r.End()
	}
	settings, err := r.load()
	if err != nil {
		r.seen = before // it is not to be tried again before it changes
		if settings != nil {
			maps.Copy(r.seen, settings.seen) // or a file that it names, which may be what is wrong
		}
		r.reloads.WithLabelValues("failed").Inc()
		r.success.Set(0)
		r.log.Error("the configuration cannot be used; the old one stays in force", append(where(err), zap.String("cause", cause), zap.Error(err))...)
		return
	}
	r.reloads.WithLabelValues("ok").Inc()
	r.success.Set(1)
	r.when.SetToCurrentTime()
	r.seen = settings.seen
	r.log.Info("the configuration was reloaded", zap.String("cause", cause))
}

// where names the place of the first setting that is wrong.
func where(err error) []zap.Field {
	var e *Error
	if !errors.As(err, &e) {
		return nil
	}
	return []zap.Field{zap.String("file", e.File), zap.Int("line", e.Line), zap.String("key", e.Key)}
}

// content is a digest of what is in a file, or of why it cannot be read.
type content [sha256.Size]byte

func digest(path string) content {
	text, err := os.ReadFile(path)
	if err != nil {
		text = []byte(err.Error())
	}
	return sha256.Sum256(text)
}

// look is what the files are now.
func (r *Reloader) look() map[string]content {
	now := make(map[string]content, len(r.seen))
	for path := range r.seen {
		now[path] = digest(path)
	}
	return now
}

// notify tells of changes that may concern the files. It watches their folders: a file is another one after an atomic rename, and where
// Kubernetes mounts it, it stays a link while the folder `..data` behind it is swapped. Without notifications the poll remains.
func (r *Reloader) notify() (changed <-chan struct{}, stop func()) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		r.log.Warn("the configuration's folders cannot be watched; files are polled", zap.Duration("every", reloadPoll), zap.Error(err))
		return nil, func() {}
	}
	names := []string{"..data"}
	for path := range r.seen {
		names = append(names, filepath.Base(path))
		if err := watcher.Add(filepath.Dir(path)); err != nil {
			r.log.Warn("a folder cannot be watched; its files are polled", zap.String("file", path), zap.Duration("every", reloadPoll), zap.Error(err))
		}
	}
	out, done := make(chan struct{}, 1), make(chan struct{}) // one change is as good as many
	go func() {
		defer close(done)
		for {
			select {
			case event, open := <-watcher.Events:
				if !open {
					return
				}
				if !slices.Contains(names, filepath.Base(event.Name)) {
					continue
				}
			case err, open := <-watcher.Errors:
				if !open {
					return
				}
				r.log.Warn("notifications of the configuration's folders were lost; looking at the files", zap.Error(err))
			}
			select {
			case out <- struct{}{}:
			default:
			}
		}
	}()
	return out, func() {
		watcher.Close()
		<-done
	}
}
