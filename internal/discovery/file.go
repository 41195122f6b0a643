package discovery

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"
)

const (
	// maxRegistryBytes bounds what is read of a registry file: some 100,000 members. A larger file is an error.
	maxRegistryBytes = 16 << 20
	// filePoll finds what no notification tells: file systems of a network, a link whose target lies in another folder, a
	// folder that was moved away.
	filePoll = 5 * time.Second
	// fileQuiet is how long a file must not have been touched before it is read, so that one that is written in place
	// is not read half written. The poll ends the wait of a file that never comes to rest.
	fileQuiet = 100 * time.Millisecond
)

// File is a registry file that is watched.
type File struct {
	path  string
	log   *zap.Logger
	poll  time.Duration
	first []byte // what stood in the file when it was opened

	counters counters
}

// NewFile reads the registry file at path. A file that is broken at the start is an error, which names the line; one that breaks later
// leaves the last good members in force.
func NewFile(path string, log *zap.Logger) (*File, error) {
	if log == nil {
		log = zap.NewNop()
	}
	data, err := readRegistry(path)
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	if _, err := parseRegistry(path, data); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	return &File{path: path, log: log.With(zap.String("registry", path)), poll: filePoll, first: data}, nil
}

// Watch reports the members of service in the file; none where the file does not name the service.
func (f *File) Watch(ctx context.Context, service string, update func([]Member)) error {
	changed, stop := f.notify()
	defer stop()
	poll := time.NewTicker(f.poll)
	defer poll.Stop()
	quiet := time.NewTimer(0)
	defer quiet.Stop()

	r := registryReader{file: f, service: service, update: update}
	r.take(f.first)
	for {
		select {
		case <-changed:
			quiet.Reset(fileQuiet)
		case <-quiet.C:
			r.read()
		case <-poll.C:
			r.read()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Read returns the members of service in the file as it is now. A file that is being written may be seen half: then it is an error.
func (f *File) Read(_ context.Context, service string) ([]Member, error) {
	data, err := readRegistry(f.path)
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	services, err := parseRegistry(f.path, data)
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	return services[service], nil
}

func (f *File) trouble(string) trouble { return f.counters.read() }

// registryReader reports a file's members where its content has changed.
type registryReader struct {
	file    *File
	service string
	update  func([]Member)
	last    []byte // the content that was looked at last, good or broken
	failure string // why it could not be read, if it could not: logged once
}

func (r *registryReader) read() {
	data, err := readRegistry(r.file.path)
	if err != nil {
		r.file.counters.lost()
		if r.failure != err.Error() {
			r.failure = err.Error()
			r.file.log.Error("cannot read the registry file; the last members stay in force", zap.Error(err))
		}
		return
	}
	if !bytes.Equal(data, r.last) || r.failure != "" {
		r.failure = ""
		r.take(data)
	}
}

func (r *registryReader) take(data []byte) {
	r.last = data
	services, err := parseRegistry(r.file.path, data)
	if err != nil {
		r.file.counters.lost()
		r.file.log.Error("the registry file is broken; the last members stay in force", zap.Error(err))
		return
	}
	r.file.counters.stale.Store(false)
	members, named := services[r.service]
	if !named {
		r.file.log.Warn("the registry file does not name the service: it has no members")
	}
	r.update(members)
}

func readRegistry(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxRegistryBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxRegistryBytes {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxRegistryBytes)
	}
	return data, nil
}

// notify tells of changes that may concern the file. It watches the folder: the file itself is another one after an atomic
// rename, and where Kubernetes mounts it, it stays a link while the folder `..data` behind it is swapped. Without
// notifications the poll remains.
func (f *File) notify() (changed <-chan struct{}, stop func()) {
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		if err = watcher.Add(filepath.Dir(f.path)); err != nil {
			watcher.Close()
		}
	}
	if err != nil {
		f.log.Warn("cannot watch the registry's folder; the file is polled", zap.Duration("every", f.poll), zap.Error(err))
		return nil, func() {}
	}
	name := filepath.Base(f.path)
	out := make(chan struct{}, 1) // one is as good as many
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case event, open := <-watcher.Events:
				if !open {
					return
				}
				if base := filepath.Base(event.Name); base != name && base != "..data" {
					continue
				}
			case err, open := <-watcher.Errors:
				if !open {
					return
				}
				f.log.Warn("notifications of the registry's folder were lost; reading the file", zap.Error(err))
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
