package backend

import (
	"context"
	"fmt"
	"sync"
	"time"
	"unicode/utf8"

	lru "github.com/hashicorp/golang-lru/v2"
)

// What a member remembers of recent messages, so that a repeated message id reaches no session twice. The oldest are forgotten
// beyond rememberMessages; one is kept for rememberFor after it was last asked for, several times the longest that one try of a
// push may take, and for as long as a session has still to take it.
const (
	rememberMessages = 1 << 16
	rememberFor      = 60 * time.Second
	maxTimeout       = 15 * time.Second // of one push; longer ones are cut to this
	answerTime       = 50 * time.Millisecond
)

// message is a push on its way through this process.
type message struct {
	Message
	id     string // sessions that were given it before are not given it again
	except string // id of a session that does not get it
	wire   []byte // the frame, once compiled
}

// check refuses what the other members would not take.
func (m *message) check(user string) error {
	if err := checkUser(user); err != nil {
		return err
	}
	if len(m.id) > maxMessageID {
		return invalid("message id of %d bytes; want at most %d", len(m.id), maxMessageID)
	}
	if !m.Binary && !utf8.Valid(m.Data) {
		return invalid("the text is not UTF-8; set Binary")
	}
	return nil
}

// frame compiles the message once for all its sessions.
func (m *message) frame() []byte {
	if m.wire == nil {
		m.wire = m.Message.frame()
	}
	return m.wire
}

// recent remembers deliveries by user and message id.
type recent struct {
	mu    sync.Mutex // so that of two who find a message to be over, both get the same new delivery
	cache *lru.Cache[recentKey, *delivery]
}

type recentKey struct{ user, message string }

func newRecent() (*recent, error) {
	cache, err := lru.New[recentKey, *delivery](rememberMessages)
	return &recent{cache: cache}, err
}

// find returns what is known of that message, or nil.
func (r *recent) find(key recentKey) *delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d, ok := r.cache.Get(key); ok && !d.isOver() {
		d.touch()
		return d
	}
	return nil
}

// join returns what is known of that message; where nothing is, a new delivery that is from now on.
func (r *recent) join(key recentKey, fingerprint uint64) *delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d, ok := r.cache.Get(key); ok && !d.isOver() {
		d.touch()
		return d
	}
	d := newDelivery(fingerprint)
	r.cache.Add(key, d)
	return d
}

// deliverLocal gives m to the user's sessions in this process, each once whatever is repeated, and waits until their bytes are
// in the kernel. It returns the ids of those that took it. An error says that some have not yet, or that m.id was used before
// with another payload.
func (b *Backend) deliverLocal(ctx context.Context, user string, m *message) ([]string, error) {
	sessions := b.table.of(user)
	key := recentKey{user, m.id}
	fingerprint := m.fingerprint()
	var d *delivery
	if len(sessions) > 0 {
		d = b.recent.join(key, fingerprint)
	} else if d = b.recent.find(key); d == nil {
		return nil, nil // nobody here, and nothing to remember
	}
	if d.fingerprint != fingerprint {
		return nil, fmt.Errorf("message id %q: %w", m.id, ErrMessageReused)
	}
	for _, s := range d.claim(sessions, m.except) {
		s.write(outgoing{frame: m.frame(), delivery: d})
	}
	took, undecided := d.wait(ctx)
	if undecided > 0 {
		return took, fmt.Errorf("%d sessions have not taken it yet: %w", undecided, ErrUnsettled)
	}
	return took, nil
}
