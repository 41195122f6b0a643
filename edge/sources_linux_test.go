package edge

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvedge/selvedge/internal/reactor"
)

// inNamespace is set in the process that has a network of its own.
const inNamespace = "SELVEDGE_TEST_NAMESPACE"

// There are more sessions than one address has ports, to one address and port of one backend. The range is narrowed to 20 ports, in a
// network namespace, where it stands for the usual 28,232.
func TestSourceAddresses(t *testing.T) {
	if os.Getenv(inNamespace) == "" {
		if !slowPath { // the child takes both paths too
			runInNamespace(t)
		}
		return
	}
	ports := func(from, to int) { portRange(t, from, to) }
	// ::1 cannot reach the backend, and is passed over. One that has its turn twice as often has no ports left when the other still has.
	often, seldom := netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3")
	sources := []netip.Addr{netip.IPv6Loopback(), often, often, seldom}
	for n, from := range map[int][]netip.Addr{20: nil, 40: sources} {
		ports(50000, 60000) // for listeners
		e := start(t, Config{
			Membership: members(listenBackend(t, echo("b0"))),
			Services:   map[string]ServiceConfig{DefaultService: {SourceAddresses: from}},
		})
		ports(40000, 40019)
		var open []*client
		for i := range n {
			c := e.sendFrom(fmt.Sprintf("127.0.1.%d", 1+i), upgradeTo(fmt.Sprintf("/ws?user=u%d", i)))
			if got := c.head(); got.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("%d sources: session %d of %d: %s", len(from), i+1, n, got.Status)
			}
			if line := c.line(); !strings.HasSuffix(line, fmt.Sprintf("/u%d", i)) {
				t.Errorf("echo %q", line)
			}
			open = append(open, c)
		}
		// One more does not fit: there is an answer that says so, and nothing walks on or breaks.
		e.sendFrom("127.0.1.250", upgradeTo("/ws?user=late")).refused(http.StatusServiceUnavailable)
		for _, c := range open {
			_ = c.Close()
		}
		e.stop()
		if err := e.wait(); err != nil {
			t.Error(err)
		}
	}
}

// A member that does not listen, on a port that the system chooses for the connection to it: the socket meets itself, and what comes back is the
// request. That is a refusal, and no answer.
func TestMemberIsOurselves(t *testing.T) {
	fast(t)
	if os.Getenv(inNamespace) == "" {
		runInNamespace(t)
		return
	}
	portRange(t, 50000, 60000) // for listeners
	e := start(t, Config{Membership: members("127.0.0.1:40000")})
	portRange(t, 40000, 40000)
	e.sendFrom("127.0.1.1", upgradeTo("/ws?user=a")).refused(http.StatusServiceUnavailable)
	if n := e.counted("selvedge_edge_dial_failures_total"); n != 1 {
		t.Errorf("%v failures to connect; want 1", n)
	}
}

func portRange(t *testing.T, from, to int) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", fmt.Appendf(nil, "%d %d", from, to), 0); err != nil {
		t.Fatal(err)
	}
}

// sendFrom is send from another address, which has ports of its own.
func (r *running) sendFrom(addr, text string) *client {
	r.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}, Control: reactor.PortAtConnect}
	conn, err := d.Dial("tcp", r.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, text); err != nil {
		r.t.Fatal(err)
	}
	return r.client(conn)
}

// runInNamespace runs the test again in a process with a network of its own, in which it may narrow the range of ports.
func runInNamespace(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	switch {
	case strings.Contains(fmt.Sprint(err), "operation not permitted"), strings.Contains(string(out), "--- SKIP"):
		t.Skipf("no network namespace of our own here: %v", err)
	case err != nil:
		t.Errorf("%v\n%s", err, out)
	}
}

// A new namespace has its loopback interface down.
func init() {
	if os.Getenv(inNamespace) == "" {
		return
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		panic(err)
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		panic(err)
	}
}
