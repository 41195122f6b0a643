package systemtest

import (
	"fmt"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/testkit"
)

// Consul is away for longer than the TTL and comes back, once with its data and once without: nobody notices, and afterwards
// changes are seen.
func TestConsulOutage(t *testing.T) {
	for _, wiped := range []bool{false, true} {
		name := "with its data"
		if wiped {
			name = "with an empty data directory"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it waits, mostly
			outage(t, wiped)
		})
	}
}

func outage(t *testing.T, wiped bool) {
	c := newCluster(t, 3, 2)
	users := userNames(60)
	devices := online(t, users, 2, c.edges...)

	c.consul.Stop()
	away := time.Now()
	late := append([]string(nil), users...)
	var latecomers *crowd
	testkit.Eventually(t, discovery.HeartbeatTTL+30*time.Second, func() error {
		// Pushes go on all the time; new users come half way.
		text := fmt.Sprintf("after %v", time.Since(away).Round(time.Millisecond))
		for _, r := range c.pushVia(users, text) {
			if r.Sessions != 2 {
				t.Fatalf("%s: push to %s: %+v", text, r.User, r)
			}
		}
		devices.wantOnce(text)
		if latecomers == nil && time.Since(away) > discovery.HeartbeatTTL/2 {
			latecomers = online(t, []string{"late-1", "late-2", "late-3"}, 2, c.edges...)
			late = append(late, "late-1", "late-2", "late-3")
		}
		if past := time.Since(away); past < discovery.HeartbeatTTL+2*time.Second {
			return fmt.Errorf("Consul has been away for %v only", past)
		}
		return nil
	}, "longer than the TTL")

	if wiped {
		c.consul.Wipe()
	}
	c.consul.Start()
	back := time.Now()
	testkit.Eventually(t, 30*time.Second, func() error {
		entries, _, err := c.consul.Client().Health().Service("default", "", true, nil)
		if err == nil && len(entries) != 3 {
			err = fmt.Errorf("%d members pass", len(entries))
		}
		return err
	}, "the members to register again")
	t.Logf("all members pass %v after Consul is back", time.Since(back).Round(time.Millisecond))

	// Longer than the hold on removals: whatever the edges and members were to believe wrongly, they believe by now.
	testkit.Eventually(t, 40*time.Second, func() bool {
		return time.Since(back) > discovery.HeartbeatTTL+10*time.Second
	}, "the time after which the catalogue is believed")
	c.awaitRing(3)
	if ends := devices.closes() + latecomers.closes(); ends > 0 {
		t.Errorf("%d sessions were closed; want none", ends)
	}
	for _, r := range c.push(late, "Consul is back") {
		if r.Sessions != 2 {
			t.Errorf("push to %s: %+v; want 2 sessions", r.User, r)
		}
	}

	// Changes are seen again: one comes, one goes.
	c.addBackend("b4")
	c.awaitRing(4)
	c.backends["b1"].kill()
	delete(c.backends, "b1")
	c.awaitRing(3)
	owner := c.owners(users)
	devices.await("everybody to be at the owner", 60*time.Second, func(d *device) bool { return d.held() == owner[d.user] })
}

// pushVia pushes through an edge, without Consul.
func (c *cluster) pushVia(users []string, text string) []pushed {
	c.t.Helper()
	args := []string{"push", "--text", text, "--via", c.edges[0].admin, "--timeout", "10s"}
	for _, user := range users {
		args = append(args, "--to", user)
	}
	results, _ := runJSON[pushed](c.t, args...)
	return results
}
