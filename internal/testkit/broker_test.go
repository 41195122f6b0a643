package testkit_test

import (
	"strings"
	"testing"

	"github.com/selvedge/selvedge/internal/testkit"
)

// Each broker comes up, under its own port and not its default one, and comes back under the same one.
func TestBrokers(t *testing.T) {
	for name, start := range map[string]func(testing.TB) *testkit.Broker{
		"redis": testkit.StartRedis, "nats": testkit.StartNATS, // RabbitMQ takes seconds; the bridge's tests restart it
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := start(t)
			url := b.URL
			b.Stop()
			b.Start()
			if b.URL != url || strings.HasSuffix(url, ":6379") || strings.HasSuffix(url, ":4222") {
				t.Errorf("at %s, then at %s", url, b.URL)
			}
		})
	}
}
