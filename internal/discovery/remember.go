package discovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// rememberAfter is how long a source may take to report before what was last known is taken instead.
const rememberAfter = 2 * time.Second

// Remembered is a source that keeps the last members it reported on disk, for a process that starts while the registry is away:
// members that were there a while ago are a better guess than none, and whoever is gone is passed over when it cannot be reached.
type Remembered struct {
	src Source
	dir string
	log *zap.Logger

	recalled atomic.Bool // what is in force is what was last known
}

// Remember makes src keep its last members in dir, a file for each service. The directory is made where it is missing.
func Remember(src Source, dir string, log *zap.Logger) (*Remembered, error) {
	if log == nil {
		log = zap.NewNop()
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("discovery: state directory: %w", err)
	}
	return &Remembered{src: src, dir: dir, log: log}, nil
}

// Read asks the source, and never the disk. It fails with [errors.ErrUnsupported] where the source is no [Reader].
func (r *Remembered) Read(ctx context.Context, service string) ([]Member, error) {
	if src, ok := r.src.(Reader); ok {
		return src.Read(ctx, service)
	}
	return nil, fmt.Errorf("discovery: read members: %w", errors.ErrUnsupported)
}

func (r *Remembered) trouble(service string) trouble {
	t := troubleOf(r.src, service)
	t.stale = t.stale || r.recalled.Load()
	return t
}

// Watch reports what the source does. Where that says nothing for two seconds, the members that were last known come first.
func (r *Remembered) Watch(ctx context.Context, service string, update func([]Member)) error {
	path := filepath.Join(r.dir, "members-"+url.PathEscape(service)+".json")
	var mu sync.Mutex // update is never called concurrently
	reported := false
	recall := time.AfterFunc(rememberAfter, func() {
		mu.Lock()
		defer mu.Unlock()
		if reported || ctx.Err() != nil {
			return
		}
		members, err := recallMembers(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			r.log.Warn("the members last known cannot be read", zap.Error(err))
		default:
			r.log.Warn("the registry does not answer; the members last known are taken", zap.Int("members", len(members)))
			r.recalled.Store(true)
			update(members)
		}
	})
	defer recall.Stop()
	err := r.src.Watch(ctx, service, func(members []Member) {
		mu.Lock()
		defer mu.Unlock()
		reported = true
		r.recalled.Store(false)
		if err := keepMembers(path, members); err != nil {
			r.log.Warn("the members cannot be kept for a restart", zap.Error(err))
		}
		update(members)
	})
	recall.Stop()
	mu.Lock() // a recall that has begun ends before Watch does
	defer mu.Unlock()
	reported = true
	return err
}

// keepMembers replaces the file in one step: a crash leaves the old one or the new one.
func keepMembers(path string, members []Member) error {
	text, err := json.Marshal(members)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".members-*")
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err := errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return os.Rename(file.Name(), path)
}

func recallMembers(path string) ([]Member, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var members []Member
	if err := json.Unmarshal(text, &members); err != nil {
		return nil, fmt.Errorf("%s: %w; remove it", path, err)
	}
	return members, nil
}
