package backendtest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/internal/discovery"
)

// timeout is for whatever a test waits for: generous, since it only ends what has failed.
const timeout = 10 * time.Second

// Member is a member of a service that has no others.
type Member struct {
	*backend.Backend
	t testing.TB
}

// New brings a member up. It listens on loopback at free ports and finds its registry in this process, unless cfg says otherwise;
// the handlers are cfg's. At the end of the test it drains, and the test fails where Run does.
func New(t testing.TB, cfg backend.Config) *Member {
	t.Helper()
	set(&cfg.ID, "backendtest")
	set(&cfg.Listen, "127.0.0.1:0")
	set(&cfg.RPC, "127.0.0.1:0")
	set(&cfg.DrainTimeout, time.Second)
	set(&cfg.Membership, backend.Membership{Memory: discovery.NewMemory()})
	b, err := backend.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil && !errors.Is(err, backend.ErrDrainTimeout) {
			t.Errorf("backendtest: Run: %v", err)
		}
	})
	select {
	case <-b.Ready():
	case err := <-ended:
		ended <- nil
		t.Fatalf("backendtest: the member does not come up: %v", err)
	case <-time.After(timeout):
		t.Fatal("backendtest: the member does not come up")
	}
	return &Member{b, t}
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
