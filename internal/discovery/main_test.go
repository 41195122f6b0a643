package discovery

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/selvedge/selvedge/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testNop = zap.NewNop()

// soon is how long a test waits for what takes milliseconds, on a machine that is busy.
const soon = 20 * time.Second

// testLog writes into the test's output.
func testLog(t testing.TB) *zap.Logger {
	t.Helper()
	return zaptest.NewLogger(t)
}

// watched collects what a source reports until the test ends.
type watched struct {
	mu      sync.Mutex
	reports [][]Member
}

// watch runs src.Watch beside the test and checks at its end that Watch stops with the context's error.
func watch(t *testing.T, src Source, service string) *watched {
	t.Helper()
	w := new(watched)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- src.Watch(ctx, service, func(members []Member) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.reports = append(w.reports, members)
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch ended with %v", err)
		}
	})
	return w
}

// last returns the newest report and how many there were.
func (w *watched) last() ([]Member, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.reports) == 0 {
		return nil, 0
	}
	return w.reports[len(w.reports)-1], len(w.reports)
}

// await waits until the newest report is want.
func (w *watched) await(t *testing.T, want []Member, what string) {
	t.Helper()
	testkit.Eventually(t, soon, func() error {
		got, n := w.last()
		if n > 0 && slices.Equal(got, want) {
			return nil
		}
		return mismatch(got, want)
	}, what)
}

func mismatch(got, want []Member) error {
	return errors.New("members:\n got " + show(got) + "\nwant " + show(want))
}
