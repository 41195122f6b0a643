package systemtest

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// lan is a network of this process alone: a namespace for each host, and this process's own in their middle, which forwards. A cut is a
// blackhole there: packets vanish, as where a switch fails, and nobody is told. Nothing of it outlives the process.
type lan struct {
	t     *testing.T
	hosts int

	mu   sync.Mutex
	cuts map[[2]string]int // by pair of addresses: those not healed yet; two events may cut the same one
}

const (
	lanSelf   = "10.77.0.1" // of this process: clients and senders
	lanConsul = "10.77.0.2" // of this process, too, but a cut can tell it from the rest
)

// inNamespaces runs the calling test again as a child in network and process namespaces of its own, and logs what it prints. Where
// the child cannot be started, the error says why.
func inNamespaces(t *testing.T) error {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	// The child ends with this process, and all that it started ends with the child: it is the first process of its namespace.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd.Stdout, cmd.Stderr = w, w
	runtime.LockOSThread() // whose end would be the child's, too
	defer runtime.UnlockOSThread()
	err = cmd.Start()
	w.Close()
	if err != nil {
		return err
	}
	logLines(t, r)
	if err := cmd.Wait(); err != nil {
		t.Errorf("inside the namespaces: %v", err)
	}
	return nil
}

// newLAN makes this process's namespace, which must be its own, the middle of a network.
func newLAN(t *testing.T) (*lan, error) {
	if os.Getenv(insideVariable) == "" {
		return nil, fmt.Errorf("not in a network namespace of its own")
	}
	if err := loopbackUp(); err != nil { // whatever else fails, the run goes on there
		t.Fatal(err)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return nil, err
	}
	// Rules are looked up before the addresses of this namespace, or cuts would not reach what runs in it. The last line but one proves
	// that there are rules at all.
	err := ip(nil,
		"rule add pref 1000 lookup local",
		"rule del pref 0",
		"addr add "+lanSelf+"/32 dev lo",
		"addr add "+lanConsul+"/32 dev lo",
		"rule add pref 100 from 10.77.0.3 to 10.77.0.4 blackhole",
		"rule del pref 100 from 10.77.0.3 to 10.77.0.4 blackhole",
	)
	if err != nil {
		return nil, err
	}
	return &lan{t: t, cuts: make(map[[2]string]int)}, nil
}

// host adds a host.
func (l *lan) host() *host {
	l.t.Helper()
	l.hosts++
	addr, link := fmt.Sprintf("10.77.1.%d", l.hosts), fmt.Sprintf("host%d", l.hosts)
	ns, err := newNamespace()
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { ns.Close() })
	err = ip(ns,
		"link add "+link+" type veth peer name wire netns /proc/self/fd/3",
		"link set "+link+" up",
		"route add "+addr+"/32 dev "+link+" src "+lanSelf,
	)
	if err != nil {
		l.t.Fatal(err)
	}
	h := &host{ip: addr, enter: func(f func()) { inside(l.t, ns, f) }}
	h.enter(func() {
		err = ip(nil,
			"link set lo up",
			"link set wire up",
			"addr add "+addr+"/32 dev wire",
			"route add "+lanSelf+" dev wire scope link",
			"route add default via "+lanSelf+" dev wire",
		)
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return h
}

// cut lets no packet pass between two addresses until as many calls of heal.
func (l *lan) cut(a, b string) { l.count(a, b, +1) }

func (l *lan) heal(a, b string) { l.count(a, b, -1) }

func (l *lan) count(a, b string, by int) {
	l.t.Helper()
	if a > b {
		a, b = b, a
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	pair := [2]string{a, b}
	before := l.cuts[pair]
	l.cuts[pair] += by
	do := "add"
	switch {
	case before > 0 && l.cuts[pair] > 0:
		return
	case by < 0:
		do = "del"
	}
	const rule = "rule %s pref 100 from %s to %s blackhole"
	if err := ip(nil, fmt.Sprintf(rule, do, a, b), fmt.Sprintf(rule, do, b, a)); err != nil {
		l.t.Fatal(err)
	}
}

// ip has the command of that name do lines in this thread's namespace; file is its descriptor 3.
func ip(file *os.File, lines ...string) error {
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if file != nil {
		cmd.ExtraFiles = []*os.File{file}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip (Debian package iproute2): %w: %s", err, out)
	}
	return nil
}

const ownNamespace = "/proc/thread-self/ns/net"

// newNamespace returns a new network namespace, which lasts as long as the file, or a process inside.
func newNamespace() (ns *os.File, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := os.Open(ownNamespace)
	if err != nil {
		return nil, err
	}
	defer here.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("unshare: %w", err)
	}
	defer func() {
		if back := unix.Setns(int(here.Fd()), unix.CLONE_NEWNET); back != nil {
			panic(back) // a thread that is lost in another network would do harm anywhere
		}
	}()
	return os.Open(ownNamespace)
}

// inside runs f in ns: processes that it starts, and sockets that it opens, live there.
func inside(t *testing.T, ns *os.File, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := os.Open(ownNamespace)
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Fatalf("setns: %v", err)
	}
	defer func() {
		if back := unix.Setns(int(here.Fd()), unix.CLONE_NEWNET); back != nil {
			panic(back)
		}
	}()
	f()
}
