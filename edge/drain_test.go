package edge

import (
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/testkit"
)

// Sessions stay through a drain as long as they like, within the drain timeout; nobody new gets in; Run ends with the last.
func TestDrainWaitsForSessions(t *testing.T) {
	e := start(t, Config{Membership: members(listenBackend(t, echo("b0"))), DrainTimeout: time.Hour})
	c := e.send(upgradeTo("/ws?user=a"))
	c.head()
	c.line()
	addr := e.Addr().String()
	e.stop()
	testkit.Eventually(t, patience, func() bool { code, _ := e.admin("GET", "/readyz", ""); return code == 503 }, "readiness fails")
	testkit.Eventually(t, patience, func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	}, "no connection is taken")
	for range 3 {
		say(c, "still here\n")
		if got := c.line(); got != "still here" {
			t.Fatalf("got %q", got)
		}
	}
	select {
	case err := <-e.done:
		t.Fatalf("Run has ended before the session did: %v", err)
	default:
	}
	_ = c.Close()
	if err := e.wait(); err != nil {
		t.Error(err)
	}
}

// After the drain timeout those left see the end of the stream, not a reset.
func TestDrainCutsAtItsTimeout(t *testing.T) {
	e := start(t, Config{Membership: members(listenBackend(t, echo("b0"))), DrainTimeout: 50 * time.Millisecond})
	var open []*client
	for range 3 * cutLeast {
		c := e.send(upgradeTo("/ws?user=a"))
		c.head()
		c.line()
		open = append(open, c)
	}
	e.stop()
	for _, c := range open {
		c.ended()
		_ = c.Close()
	}
	if err := e.wait(); err != nil {
		t.Error(err)
	}
	if e.Sessions() != 0 {
		t.Errorf("%d sessions", e.Sessions())
	}
}

func TestDrainLetsRequestsEnd(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	addr := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-answer
		_, _ = io.WriteString(w, "done")
	})
	e := start(t, Config{Membership: members(addr), DrainTimeout: time.Hour})
	c := e.send(get("/?user=a"))
	<-asked
	e.stop()
	testkit.Eventually(t, patience, func() bool { return e.draining.Load() }, "it drains")
	close(answer)
	if _, body := c.whole(); body != "done" {
		t.Errorf("got %q", body)
	}
	if err := e.wait(); err != nil {
		t.Error(err)
	}
}

func TestRunEndsAtOnceWithoutSessions(t *testing.T) {
	e := start(t, Config{Membership: members(), DrainTimeout: time.Hour})
	e.stop()
	if err := e.wait(); err != nil {
		t.Error(err)
	}
}

// Readiness fails first: whoever comes before balancers have seen it gets a session yet.
func TestDrainDelay(t *testing.T) {
	e := start(t, Config{Membership: members(listenBackend(t, echo("b0"))), DrainDelay: 2 * time.Second, DrainTimeout: time.Hour})
	addr := e.Addr().String()
	e.stop()
	testkit.Eventually(t, patience, func() bool { code, _ := e.admin("GET", "/readyz", ""); return code == 503 }, "readiness fails")
	c := e.send(upgradeTo("/ws?user=a"))
	if got := c.head().StatusCode; got != http.StatusSwitchingProtocols {
		t.Fatalf("during the delay: %d", got)
	}
	c.line()
	testkit.Eventually(t, patience, func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	}, "no connection is taken any more")
	say(c, "still here\n")
	if got := c.line(); got != "still here" {
		t.Errorf("got %q", got)
	}
	_ = c.Close()
	if err := e.wait(); err != nil {
		t.Error(err)
	}
}
