package config

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/selvedge/selvedge/internal/testkit"
)

// watched is a reloader at work on a file, and what it has put in force.
type watched struct {
	*Reloader
	loads   chan string // the engine of each load, or the error
	hangups chan os.Signal
	logs    *observer.ObservedLogs
}

func watch(t *testing.T, file string) *watched {
	t.Helper()
	read := func() (*Settings, error) {
		s, err := Load(Sources{File: file, Env: []string{}})
		if err == nil {
			_, err = s.Token("admin.token_file", s.Admin.TokenFile)
		}
		return s, err
	}
	first, err := read()
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.InfoLevel)
	w := &watched{loads: make(chan string, 100), hangups: make(chan os.Signal, 1), logs: logs}
	load := func() (*Settings, error) {
		s, err := read()
		if err != nil {
			w.loads <- err.Error()
			return nil, err
		}
		w.loads <- s.Engine
		return s, nil
	}
	if w.Reloader, err = NewReloader("test", first, load, prometheus.NewRegistry(), zap.New(core)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx, w.hangups) }()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

// wants waits for a load. On a busy machine one change can be seen as two, the first of which reads the file as it was before, or empty.
func (w *watched) wants(t *testing.T, part string) {
	t.Helper()
	for overdue := time.After(5 * time.Second); ; {
		select {
		case got := <-w.loads:
			if strings.Contains(got, part) {
				return
			}
			t.Logf("loaded %q on the way to %q", got, part)
		case <-overdue:
			t.Fatalf("no load; want %q", part)
		}
	}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestReloaderSeesChanges(t *testing.T) {
	dir := t.TempDir()
	file, token := filepath.Join(dir, "edge.yaml"), filepath.Join(t.TempDir(), "token")
	put(t, file, "engine: a\n")
	put(t, token, "s3cret")
	w := watch(t, file)

	put(t, file, "engine: in-place\n")
	w.wants(t, "in-place")

	put(t, filepath.Join(dir, "new"), "engine: renamed\nadmin: {token_file: "+token+"}\n")
	if err := os.Rename(filepath.Join(dir, "new"), file); err != nil {
		t.Fatal(err)
	}
	w.wants(t, "renamed")

	put(t, token, "an0ther") // named by the file that came last, in another folder
	w.wants(t, "renamed")

	put(t, file, "engin: typo\n")
	w.wants(t, "edge.yaml:1: engin: no such key here; did you mean engine?")
	testkit.Eventually(t, 5*time.Second, func() bool { return testutil.ToFloat64(w.success) == 0 }, "the metric tells of the broken file")
	testkit.Eventually(t, 5*time.Second, func() bool {
		logs := w.logs.FilterMessageSnippet("the old one stays in force").All()
		return len(logs) > 0 && logs[len(logs)-1].ContextMap()["key"] == "engin"
	}, "the log names the key")
	w.hangups <- os.Interrupt // whatever the signal is
	w.wants(t, "engin")

	put(t, file, "engine: mended\n")
	w.wants(t, "mended")
	testkit.Eventually(t, 5*time.Second, func() bool { return testutil.ToFloat64(w.success) == 1 }, "the metric tells that it is well")
	if ok, failed := testutil.ToFloat64(w.reloads.WithLabelValues("ok")), testutil.ToFloat64(w.reloads.WithLabelValues("failed")); ok < 4 || failed < 2 {
		t.Errorf("%v reloads and %v failures, want at least 4 and 2", ok, failed)
	}
}

// Kubernetes swaps a link in the folder; the file itself is not touched.
func TestReloaderSeesALinkSwapped(t *testing.T) {
	dir := t.TempDir()
	for version, engine := range map[string]string{"..1": "one", "..2": "two"} {
		if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(dir, version, "edge.yaml"), "engine: "+engine+"\n")
	}
	file := filepath.Join(dir, "edge.yaml")
	if err := errors.Join(os.Symlink("..1", filepath.Join(dir, "..data")), os.Symlink("..data/edge.yaml", file)); err != nil {
		t.Fatal(err)
	}
	w := watch(t, file)
	if err := errors.Join(os.Symlink("..2", filepath.Join(dir, "..tmp")), os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data"))); err != nil {
		t.Fatal(err)
	}
	changed := time.Now()
	w.wants(t, "two")
	if took := time.Since(changed); took > 3*time.Second { // the poll finds it after five
		t.Errorf("seen after %v: not by its notification", took)
	}
}

// Wherever a problem is found, it says where the key stands.
func TestLocate(t *testing.T) {
	s, err := Load(Sources{File: write(t, "routes:\n  - path: /\n  - path: nonsense\n"), Env: []string{}, Flags: map[string]any{"engine": "x"}})
	if err != nil {
		t.Fatal(err)
	}
	cause := errors.New("plain")
	found := s.Locate(errors.Join(Under("routes[1]", Wrongf("path", "want a slash")), Under("engine", cause), errors.New("nobody's")))
	for _, want := range []string{"edge.yaml:3: routes[1].path: want a slash", "\nengine: plain", "\nnobody's"} {
		if !strings.Contains(found.Error(), want) {
			t.Errorf("%q does not say %q", found, want)
		}
	}
	if !errors.Is(found, cause) || s.Locate(nil) != nil || !errors.Is(s.Locate(cause), cause) {
		t.Error("the errors themselves are lost")
	}
}
