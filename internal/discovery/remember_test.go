package discovery

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
)

// silent is a source that never answers, as a registry that is away.
type silent struct{}

func (silent) Watch(ctx context.Context, _ string, _ func([]Member)) error {
	<-ctx.Done()
	return ctx.Err()
}

// watchOne returns the first members that src reports, or nil when it reports none within a while.
func watchOne(t *testing.T, src Source, within time.Duration) []Member {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	var got []Member
	_ = src.Watch(ctx, "chat/eu", func(members []Member) { // ends with ctx's error
		got = members
		cancel()
	})
	return got
}

func TestRemember(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	log := zaptest.NewLogger(t)
	registry := NewMemory()
	want := Member{ID: "b1", Incarnation: 7, Addr: "127.0.0.1:1", RPCAddr: "127.0.0.1:2", Weight: 3}
	registry.Put("chat/eu", want)
	kept, err := Remember(registry, dir, log)
	if err != nil {
		t.Fatal(err)
	}
	if got := watchOne(t, kept, 5*time.Second); !slices.Equal(got, []Member{want}) {
		t.Fatalf("the source's own report: %+v", got)
	}

	away, err := Remember(silent{}, dir, log)
	if err != nil {
		t.Fatal(err)
	}
	if got := watchOne(t, away, 10*time.Second); !slices.Equal(got, []Member{want}) {
		t.Errorf("after a restart without the registry: %+v, want %+v", got, want)
	}

	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Fatalf("the directory holds %v, %v; want one file", files, err)
	}
	if err := os.WriteFile(filepath.Join(dir, files[0].Name()), []byte("[{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := watchOne(t, away, rememberAfter+time.Second); got != nil {
		t.Errorf("a broken file gave %+v; want nothing", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "plain"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Remember(registry, filepath.Join(dir, "plain"), log); err == nil {
		t.Error("a file was taken for a directory")
	}
}
