package systemtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/backend/sender"
)

// chaosFor is how long TestChaos runs unless SELVEDGE_CHAOS says otherwise (make chaos: 60s).
const (
	chaosFor      = 12 * time.Second
	chaosEvery    = 2 * time.Second
	chaosUsers    = 100
	chaosPushes   = 100 // a second
	chaosDeadline = 5 * time.Second
)

// pushLog is one push as the sender saw it.
type pushLog struct {
	user, text string
	began, end time.Time
	sessions   int
	err        error
}

// TestChaos kills, restarts, drains and adds real backends under pushes, and holds each outcome that a sender was told against what the
// clients logged: DELIVERED(n) reached n sessions, OFFLINE met nobody, no session that was open throughout was left out, none got a
// message twice. What breaks in the very moment of a push is counted apart.
func TestChaos(t *testing.T) {
	duration := chaosFor
	if text := os.Getenv("SELVEDGE_CHAOS"); text != "" {
		var err error
		if duration, err = time.ParseDuration(text); err != nil {
			t.Fatalf("SELVEDGE_CHAOS: %v; want a duration, like 60s", err)
		}
	}
	c := newCluster(t, 4, 2)
	users := userNames(chaosUsers)
	devices := online(t, users, 2, c.edges...)
	ctx, cancel := context.WithTimeout(context.Background(), duration)
	defer cancel()

	pushes := make(chan []*pushLog, 1)
	go func() { pushes <- pushAll(ctx, c.sender(), users) }()
	events := make(map[string]int)
	tick := time.NewTicker(chaosEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-tick.C:
			events[c.disturb(n)]++
			continue
		case <-ctx.Done():
		}
		break
	}
	logs := <-pushes
	devices.await("everybody to be connected at the end", 30*time.Second, func(d *device) bool { return d.held() != "" })
	devices.close()
	judge(t, logs, devices, events)
}

// disturb does the n-th harm, and says which. Every fourth time as many backends are there as before.
func (c *cluster) disturb(n int) string {
	ids := make([]string, 0, len(c.backends))
	for id := range c.backends {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	victim := ids[rand.IntN(len(ids))]
	switch n % 4 {
	case 0:
		c.backends[victim].kill()
		c.addBackend(victim)
		return "kill -9, restart with the same id"
	case 1:
		c.addBackend(fmt.Sprintf("n%d", n))
		return "new backend"
	case 2:
		c.backends[victim].kill()
		delete(c.backends, victim)
		return "kill -9"
	default:
		c.backends[victim].signal(syscall.SIGTERM)
		delete(c.backends, victim)
		c.addBackend(fmt.Sprintf("n%d", n))
		return "drain, and a new one in its place"
	}
}

// pushAll pushes to users at random at an even pace until ctx ends, and waits for all answers.
func pushAll(ctx context.Context, s *sender.Sender, users []string) []*pushLog {
	var logs []*pushLog
	var wg sync.WaitGroup
	tick := time.NewTicker(time.Second / chaosPushes)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			wg.Wait()
			return logs
		}
		log := &pushLog{user: users[rand.IntN(len(users))], text: fmt.Sprintf("push %d", n)}
		logs = append(logs, log)
		wg.Go(func() {
			within, cancel := context.WithTimeout(context.Background(), chaosDeadline)
			defer cancel()
			log.began = time.Now()
			result, err := s.Push(within, log.user, sender.Text(log.text))
			log.end, log.sessions, log.err = time.Now(), result.Sessions, err
		})
	}
}

// judge compares what senders were told with what clients saw.
func judge(t *testing.T, logs []*pushLog, devices *crowd, events map[string]int) {
	conns := make(map[string][]*connection)
	for _, d := range devices.devices {
		conns[d.user] = append(conns[d.user], d.conns...)
	}
	var delivered, offline, inFlight int
	failed := make(map[string]int)
	for _, p := range logs {
		got, broke := 0, 0
		for _, conn := range conns[p.user] {
			switch n := conn.got[p.text]; {
			case n > 1:
				t.Errorf("%s reached one session of %s %d times", p.text, p.user, n)
			case n == 1:
				got++
			case !conn.ended.IsZero() && conn.ended.After(p.began) && conn.opened.Before(p.end):
				broke++ // it may have been taken, and gone with the connection
			}
			throughout := conn.opened.Before(p.began) && (conn.ended.IsZero() || conn.ended.After(p.end.Add(time.Second)))
			if p.err == nil && throughout && conn.got[p.text] == 0 {
				t.Errorf("LOST: %s to %s (told: %d sessions) did not reach a session that was open throughout", p.text, p.user, p.sessions)
			}
		}
		switch {
		case p.err != nil:
			failed[connect.CodeOf(p.err).String()+" "+pushv1.DetailOf(p.err).GetReason().String()]++
		case p.sessions > got+broke:
			t.Errorf("LOST: %s to %s was told to have reached %d sessions; %d got it, %d broke", p.text, p.user, p.sessions, got, broke)
		case p.sessions == 0:
			offline++
		default:
			delivered++
			inFlight += p.sessions - min(p.sessions, got)
		}
	}
	t.Logf("events %v", events)
	t.Logf("%d pushes: %d delivered, %d offline, failed %v; in flight at break: %d sessions", len(logs), delivered, offline, failed, inFlight)
	if delivered < len(logs)/2 {
		t.Errorf("only %d of %d pushes were delivered", delivered, len(logs))
	}
}
