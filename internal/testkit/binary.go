package testkit

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

const consulPackage = "github.com/hashicorp/consul"

// consulBinary returns the path of a Consul server, building it where there is none.
func consulBinary(t testing.TB) string {
	t.Helper()
	path, err := findConsul()
	if err != nil {
		t.Fatalf("no Consul server to test with: %v", err)
	}
	return path
}

var findConsul = sync.OnceValues(func() (string, error) {
	if path, err := exec.LookPath("consul"); err == nil {
		return path, nil
	}
	root, err := checkout()
	if err != nil {
		return "", err
	}
	pinned := filepath.Join(root, "bin", "consul")
	if isFile(pinned) {
		return pinned, nil
	}
	if err := buildConsul(root, pinned); err != nil {
		return "", err
	}
	return pinned, nil
})

// buildConsul builds the pinned Consul at path. Test binaries of several packages run at once: one of them builds, the others wait
// for its lock and find the result.
func buildConsul(root, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() // lets go of the lock, too
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("flock %s: %w", lock.Name(), err)
	}
	if isFile(path) {
		return nil
	}
	fmt.Fprintf(os.Stderr, "testkit: building %s from internal/tools, once; this takes minutes\n", consulPackage)
	half := path + ".building"
	cmd := exec.Command("go", "build", "-C", filepath.Join(root, "internal", "tools"), "-o", half, consulPackage)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", consulPackage, err, out)
	}
	return os.Rename(half, path)
}

// checkout returns the folder of the main module: the nearest above this test's that holds internal/tools.
func checkout() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if isFile(filepath.Join(dir, "internal", "tools", "go.mod")) {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("the test does not run inside a checkout")
		}
		dir = parent
	}
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
