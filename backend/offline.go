package backend

import (
	"fmt"

	lru "github.com/hashicorp/golang-lru/v2"
	"go.uber.org/zap"
)

const (
	offlineWidth    = 64      // calls of OnOffline at once; more wait, as long as their pushes do
	rememberOffline = 1 << 16 // messages handed to OnOffline
)

// offline hands messages that found nobody to the service.
type offline struct {
	gate chan struct{} // a value for each call under way
	told *lru.Cache[offlineKey, struct{}]
}

type offlineKey struct{ user, message string }

func newOffline() (*offline, error) {
	told, err := lru.New[offlineKey, struct{}](rememberOffline)
	return &offline{gate: make(chan struct{}, offlineWidth), told: told}, err
}

// isOffline tells whether the service is to hear of a settled push: it is certain that no session was open. A push that leaves a session out
// is a copy for the sender's other devices; that there are none is no loss.
func (b *Backend) isOffline(e *errand) bool {
	return b.cfg.OnOffline != nil && e.question.Certain && len(e.question.Sessions) == 0 && e.message.except == ""
}

// keepOffline calls OnOffline for e's message, once for its id if all goes well. An error makes the push fail, so that its sender tries again.
func (b *Backend) keepOffline(e *errand) error {
	key := offlineKey{e.user, e.message.id}
	if b.offline.told.Contains(key) {
		return nil
	}
	select {
	case b.offline.gate <- struct{}{}:
	case <-e.ctx.Done():
		return fmt.Errorf("the user is offline, and %d calls of OnOffline are under way: %w", offlineWidth, ErrOverloaded)
	}
	defer func() { <-b.offline.gate }()
	if err := b.callOnOffline(e); err != nil {
		return fmt.Errorf("the user is offline, and OnOffline failed: %w: %w", err, ErrUnsettled)
	}
	b.offline.told.Add(key, struct{}{})
	b.metrics.offline.Inc()
	return nil
}

func (b *Backend) callOnOffline(e *errand) (err error) {
	defer func() {
		if p := recover(); p != nil {
			b.log.Error("OnOffline panicked; the push fails", zap.Any("panic", p), zap.Stack("stack"))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return b.cfg.OnOffline(e.ctx, e.user, e.message.id, e.message.Message)
}
