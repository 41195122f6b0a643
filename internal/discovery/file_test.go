package discovery

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/selvedge/selvedge/internal/testkit"
)

const (
	oneMember  = "services: {chat: [{id: a, addr: 'h:1'}]}\n"
	twoMembers = "services: {chat: [{id: a, addr: 'h:1'}, {id: b, addr: 'h:2'}]}\n"
)

var (
	one = []Member{{ID: "a", Addr: "h:1", Weight: 1}}
	two = []Member{{ID: "a", Addr: "h:1", Weight: 1}, {ID: "b", Addr: "h:2", Weight: 1}}
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// openFile opens a registry whose poll is so slow that only notifications can tell of a change.
func openFile(t *testing.T, path string, log *zap.Logger) *File {
	t.Helper()
	f, err := NewFile(path, log)
	if err != nil {
		t.Fatal(err)
	}
	f.poll = time.Hour
	return f
}

func TestFileWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "members.yaml")
	write(t, path, oneMember)
	w := watch(t, openFile(t, path, testLog(t)), "chat")
	w.await(t, one, "the first content")
	write(t, path, twoMembers)
	w.await(t, two, "written in place")
	next := path + ".new"
	write(t, next, oneMember)
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
	w.await(t, one, "renamed over")
	write(t, path, twoMembers)
	w.await(t, two, "written after a rename")
	write(t, path, "services: {game: []}")
	w.await(t, nil, "the service is not named any more")
}

// TestFileKubernetes swaps the folder behind a link, as a kubelet does with a ConfigMap.
func TestFileKubernetes(t *testing.T) {
	dir := t.TempDir()
	mount := func(version, text string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, version, "members.yaml"), text)
		link := filepath.Join(dir, "..data_tmp")
		if err := os.Symlink(version, link); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link, filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	mount("..v1", oneMember)
	path := filepath.Join(dir, "members.yaml")
	if err := os.Symlink(filepath.Join("..data", "members.yaml"), path); err != nil {
		t.Fatal(err)
	}
	w := watch(t, openFile(t, path, testLog(t)), "chat")
	w.await(t, one, "the first version")
	mount("..v2", twoMembers)
	w.await(t, two, "the second version")
}

func TestFileBroken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "members.yaml")
	write(t, path, oneMember)
	core, logs := observer.New(zap.ErrorLevel)
	w := watch(t, openFile(t, path, zap.New(core)), "chat")
	w.await(t, one, "the first content")

	write(t, path, "services:\n  chat:\n  - {id: a, addr: h}\n")
	testkit.Eventually(t, soon, func() bool { return logs.Len() == 1 }, "the broken file is logged")
	if said, _ := logs.All()[0].ContextMap()["error"].(string); !strings.Contains(said, path+":3:") {
		t.Errorf("the log does not name file and line: %q", said)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, soon, func() bool { return logs.Len() == 2 }, "the missing file is logged")
	if got, n := w.last(); n != 1 {
		t.Errorf("a broken file was reported: %s", show(got))
	}
	write(t, path, twoMembers)
	w.await(t, two, "mended")
}

// TestFilePolled changes the target of a link in another folder, of which no notification tells.
func TestFilePolled(t *testing.T) {
	target := filepath.Join(t.TempDir(), "target.yaml")
	path := filepath.Join(t.TempDir(), "members.yaml")
	write(t, target, oneMember)
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	f := openFile(t, path, testLog(t))
	f.poll = 10 * time.Millisecond
	w := watch(t, f, "chat")
	w.await(t, one, "the first content")
	write(t, target, twoMembers)
	w.await(t, two, "found by the poll")
}

func TestFileThatIsTooLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "members.yaml")
	write(t, path, oneMember)
	if err := os.Truncate(path, maxRegistryBytes+1); err != nil {
		t.Fatal(err)
	}
	if _, err := NewFile(path, nil); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Fatal(err)
	}
}
