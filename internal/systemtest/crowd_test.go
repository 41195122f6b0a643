package systemtest

import (
	"context"
	"testing"
	"time"

	"github.com/selvedge/selvedge/backend/sender"
	"github.com/selvedge/selvedge/internal/testkit"
)

// 3 backends, 2 edges, 1,000 users with 2 devices each: everybody is where the ring says, and pushes from another process reach
// each device once. Then a fourth backend is added, and one is killed.
func TestThousandUsers(t *testing.T) {
	c := newCluster(t, 3, 2)
	users := userNames(1000)
	devices := online(t, users, 2, c.edges...)

	t.Run("devices are at their users' owner", func(t *testing.T) {
		owner := c.owners(users)
		byBackend := make(map[string]int)
		for _, d := range devices.devices {
			if d.held() != owner[d.user] {
				t.Fatalf("a device of %s is at %s; the ring says %s", d.user, d.held(), owner[d.user])
			}
			byBackend[d.held()]++
		}
		t.Logf("devices by backend: %v", byBackend)
		type presence struct {
			User     string
			Sessions []struct{ Backend string }
		}
		lines, code := runJSON[presence](t, append(append([]string{"presence"}, users...), "--via", c.edges[0].admin)...)
		if code != 0 || len(lines) != len(users) {
			t.Fatalf("presence: exit code %d, %d lines", code, len(lines))
		}
		for _, l := range lines {
			if len(l.Sessions) != 2 || l.Sessions[0].Backend != owner[l.User] || l.Sessions[1].Backend != owner[l.User] {
				t.Fatalf("presence of %+v; want 2 sessions at %s", l, owner[l.User])
			}
		}
	})

	t.Run("pushes reach every device once", func(t *testing.T) {
		delivered := 0
		for _, r := range c.push(users, "to everybody by id") {
			if r.Outcome != "DELIVERED" || r.Sessions != 2 {
				t.Errorf("push to %s: %+v; want 2 sessions", r.User, r)
			}
			delivered += r.Sessions
		}
		if delivered != 2000 {
			t.Errorf("%d deliveries; want 2,000", delivered)
		}
		devices.wantOnce("to everybody by id")
	})

	t.Run("a fourth backend", func(t *testing.T) { addBackend(t, c, devices, users) })
	t.Run("kill -9 of a backend", func(t *testing.T) { killBackend(t, c, devices, users) })
}

// killBackend kills one, and times until the last of its users has been pushed to again.
func killBackend(t *testing.T, c *cluster, devices *crowd, users []string) {
	owner := c.owners(users)
	before := devices.closes()
	ends := make(map[*device]int)
	for _, d := range devices.devices {
		ends[d] = len(d.ends())
	}
	victim := c.backends["b2"]
	delete(c.backends, "b2")
	var orphans []string
	for _, user := range users {
		if owner[user] == victim.id {
			orphans = append(orphans, user)
		}
	}
	inside := c.sender()
	if _, err := inside.Push(context.Background(), users[0], sender.Text("so that it knows the members")); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	victim.kill()

	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	left := orphans
	for len(left) > 0 && ctx.Err() == nil {
		results, err := inside.PushMany(ctx, left, sender.Text("are you back?"))
		if err != nil {
			t.Fatal(err)
		}
		left = nil
		for _, r := range results {
			if r.Sessions < 2 {
				left = append(left, r.User)
			}
		}
	}
	took := time.Since(killed)
	t.Logf("%d users of the killed backend: both devices of the last were reached %v after the kill", len(orphans), took.Round(time.Millisecond))
	if len(left) > 0 || took > 3*time.Second {
		t.Errorf("%d users are not reachable yet, %v after the kill; want all within 3 s", len(left), took)
	}

	// Consul notices at the TTL's end; nobody moves then either: the users are at the successors already.
	c.awaitRing(3)
	settled := time.Now()
	testkit.Eventually(t, 30*time.Second, func() bool { return time.Since(settled) > 5*time.Second }, "moves to happen that must not")
	if ended := devices.closes() - before; ended != 2*len(orphans) {
		t.Errorf("%d connections ended; want the %d of the killed backend and no other", ended, 2*len(orphans))
	}
	for _, d := range devices.devices {
		if owner[d.user] != victim.id {
			continue
		}
		if fresh := d.ends()[ends[d]:]; len(fresh) != 1 {
			t.Errorf("%s: %v; want one end", d.user, fresh)
			break
		}
	}
	newOwner := c.owners(users)
	devices.await("all devices to be at the new owners", 10*time.Second, func(d *device) bool { return d.held() == newOwner[d.user] })
}

// addBackend adds one: exactly the users whose owner changed move, with 1012.
func addBackend(t *testing.T, c *cluster, devices *crowd, users []string) {
	before := c.owners(users)
	ends := make(map[*device]int)
	for _, d := range devices.devices {
		ends[d] = len(d.ends())
	}
	c.addBackend("b4")
	c.awaitRing(4)
	after := c.owners(users)
	moved := 0
	for _, user := range users {
		if before[user] != after[user] {
			moved++
			if after[user] != "b4" {
				t.Errorf("%s moved from %s to %s, a survivor", user, before[user], after[user])
			}
		}
	}
	t.Logf("%d of %d users move to the new backend; the ideal share is %d", moved, len(users), len(users)/4)
	devices.await("moved devices to be at the new backend", 60*time.Second, func(d *device) bool { return d.held() == after[d.user] })
	for _, d := range devices.devices {
		fresh := d.ends()[ends[d]:]
		switch {
		case before[d.user] == after[d.user] && len(fresh) > 0:
			t.Errorf("%s did not move, and was closed: %v", d.user, fresh)
		case before[d.user] != after[d.user] && (len(fresh) != 1 || fresh[0].code != 1012 || fresh[0].reason != "moved"):
			t.Errorf("%s moved, and was closed with %v; want 1012 moved, once", d.user, fresh)
		}
	}
	for _, r := range c.push(users, "after the move") {
		if r.Sessions != 2 {
			t.Errorf("push to %s: %+v; want 2 sessions", r.User, r)
		}
	}
	devices.wantOnce("after the move")
}
