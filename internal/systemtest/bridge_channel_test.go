package systemtest

import (
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/selvedge/selvedge/internal/testkit"
)

// Redis pub/sub keeps nothing. What is published while a bridge listens arrives; what is published while none does is lost, and so is what a bridge
// that is killed had not pushed yet. This counts both.
func TestBridgeFromRedisChannel(t *testing.T) {
	t.Parallel() // it waits, mostly
	run := newBridgeRun(t)
	c := newCluster(t, 3, 1)
	users := userNames(bridgeUsers)
	door := &node{process: c.edges[0].process, id: "edge 1", host: &host{listen: c.edges[0].addr}}
	all := connectAll(users, 1, []*node{door})
	defer all.close()
	testkit.Eventually(t, 30*time.Second, func() bool {
		for _, client := range all.list {
			if _, online := client.present(); !online {
				return false
			}
		}
		return true
	}, "all users to be online")
	url := testkit.StartRedis(t).URL
	options, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	defer client.Close()
	args := []string{"bridge", "--redis", url, "--channel", "chat", "--user", "json:to", "--payload", "json:text", "--admin", "127.0.0.1:0",
		"--consul", c.consul.Addr}
	bridge := startBridge(t, "bridge", args...)

	n := 0
	publish := func(messages int) (first int, heard []bool) {
		t.Helper()
		first = n
		for range messages {
			listeners, err := client.Publish(t.Context(), "chat", bridgeBody(users[n%len(users)], n)).Result()
			if err != nil {
				t.Fatal(err)
			}
			heard = append(heard, listeners > 0)
			n++
		}
		return first, heard
	}
	has := func(i int) bool { return all.list[i%len(users)].has(fmt.Sprintf("m%d", i)) }
	arrived := func(first, messages int) (count int) {
		for i := first; i < first+messages; i++ {
			if has(i) {
				count++
			}
		}
		return count
	}
	await := func(first, messages int) {
		t.Helper()
		testkit.Eventually(t, 60*time.Second, func() error {
			if count := arrived(first, messages); count < messages {
				return fmt.Errorf("%d of %d", count, messages)
			}
			return nil
		}, "all that was published while a bridge listened to arrive")
	}

	part := run.messages / (2 + 2*run.kills)
	first, _ := publish(part)
	await(first, part)
	lostInKill, lostInGap, published := 0, 0, part
	for range run.kills {
		under, _ := publish(part) // the kill comes behind them: most are in the bridge
		bridge.kill()
		testkit.Eventually(t, 20*time.Second, func() bool {
			return client.PubSubNumSub(t.Context(), "chat").Val()["chat"] == 0
		}, "Redis to notice that the bridge is gone")
		gap, heard := publish(part)
		for _, h := range heard {
			if h {
				t.Error("somebody listens to the channel besides the bridge")
			}
		}
		bridge = startBridge(t, "bridge", args...)
		fence, _ := publish(len(users)) // behind it, whatever was on its way is there
		await(fence, len(users))
		if count := arrived(gap, part); count != 0 {
			t.Errorf("%d of %d messages arrived that were published while no bridge listened; where were they?", count, part)
		}
		lostInKill += part - arrived(under, part)
		lostInGap += part
		published += 2*part + len(users)
	}
	first, _ = publish(part)
	bridge.drain()
	await(first, part)
	published += part
	t.Logf("%d messages published, %d kills of the bridge: %d lost that were in it, %d that were published while none listened", published, run.kills,
		lostInKill, lostInGap)
}
