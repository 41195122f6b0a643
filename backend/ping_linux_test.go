package backend_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/internal/testkit"
)

// Who is pinged is not asked by TCP, too; who is not, is.
func TestKeepalive(t *testing.T) {
	t.Parallel()
	for pingEvery, timer := range map[time.Duration]string{time.Minute: "00", -1: "02"} {
		m, _ := pinging(t, func(cfg *backend.Config) { cfg.PingEvery = pingEvery })
		s := m.open(t, "alice")
		testkit.Eventually(t, 5*time.Second, func() error {
			if got := timerOf(t, s.RemoteAddr(), s.LocalAddr()); got != timer {
				return fmt.Errorf("pinged every %v: timer %q of the session's socket, want %q", pingEvery, got, timer)
			}
			return nil
		}, "keepalive")
	}
}

// timerOf is what the kernel waits for on a socket: 00 nothing, 02 that it is to be asked whether the peer is there (proc(5), net/tcp).
func timerOf(t *testing.T, local, remote net.Addr) string {
	t.Helper()
	sockets, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	hex := func(a net.Addr) string {
		addr := a.(*net.TCPAddr)
		ip := addr.IP.To4()
		return fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], addr.Port)
	}
	for line := range strings.Lines(string(sockets)) {
		if f := strings.Fields(line); len(f) > 5 && f[1] == hex(local) && f[2] == hex(remote) {
			return f[5][:2]
		}
	}
	return ""
}
