package backend

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/selvedge/selvedge/internal/homing"
	"github.com/selvedge/selvedge/internal/peerv1"
)

// What a member remembers of recent messages, so that a repeated message id reaches no session twice. One is kept for rememberFor
// after it was last asked for, several times the longest that one try of a push may take, and for as long as a session has still
// to take it. A member that has no place left takes no push until there is one.
const (
	rememberMessages = 1 << 20
	rememberFor      = 60 * time.Second
	rememberOrder    = 1 << 16          // pairs of sender and user
	maxTimeout       = 15 * time.Second // of one push; longer ones are cut to this
	answerTime       = 50 * time.Millisecond
)

// message is a push on its way through this process.
type message struct {
	Message
	id       string // sessions that were given it before are not given it again
	except   string // id of a session that does not get it
	sender   string // with sequence: a push that comes after a later one of its sender to the same user is not delivered
	sequence uint64
	wire     []byte // the frame, once compiled
	print    uint64 // its fingerprint, once there is a frame

	many *homing.Many[*delivery] // of recent, where it goes to many users
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
		m.wire, m.print = m.Message.frame(), m.Message.fingerprint()
	}
	return m.wire
}

// fingerprint hashes the payload once for all its users.
func (m *message) fingerprint() uint64 {
	if m.wire == nil {
		return m.Message.fingerprint()
	}
	return m.print
}

func (m *message) proto() *peerv1.Message {
	out := &peerv1.Message{Id: m.id, Sender: m.sender, Sequence: m.sequence}
	if m.Binary {
		out.Payload = &peerv1.Message_Data{Data: m.Data}
	} else {
		out.Payload = &peerv1.Message_Text{Text: string(m.Data)}
	}
	return out
}

func messageFromPeer(m *peerv1.Message, except string) (*message, error) {
	if m.GetId() == "" || len(m.GetId()) > maxMessageID {
		return nil, invalid("message id of %d bytes; want 1 to %d", len(m.GetId()), maxMessageID)
	}
	out := &message{id: m.GetId(), except: except, sender: m.GetSender(), sequence: m.GetSequence()}
	if data, ok := m.GetPayload().(*peerv1.Message_Data); ok {
		out.Message = Message{Data: data.Data, Binary: true}
	} else {
		out.Message = Message{Data: []byte(m.GetText())}
	}
	return out, nil
}

// recent remembers deliveries, and who has overtaken whom.
type recent struct {
	mu         sync.Mutex
	deliveries *homing.Memory[*delivery]
	order      *homing.Order
}

func newRecent() *recent {
	return &recent{
		deliveries: homing.NewMemory(rememberMessages, homing.Instant(rememberFor), (*delivery).isBusy),
		order:      homing.NewOrder(rememberOrder),
	}
}

// join returns what is known of m; where nothing is, a new delivery that is from now on, or nil where nobody is here to have it. late
// says that the sender has been here with a later push since: whoever has not got m yet must not get it any more.
func (r *recent) join(now homing.Instant, user string, m *message, anybody bool) (d *delivery, late bool, err error) {
	key, print := homing.MessageKey{User: user, Message: m.id}, m.fingerprint()
	r.mu.Lock()
	defer r.mu.Unlock()
	late = anybody && r.isLate(user, m)
	if anybody && !late { // nearly always: one search of a memory that no cache holds is spared
		if m.many != nil {
			d, err = m.many.Join(now, user, newDelivery)
		} else {
			d, err = r.deliveries.Join(now, key, print, newDelivery)
		}
	} else {
		var known bool
		d, known, err = r.deliveries.Find(now, key, print)
		switch {
		case err == nil && !known && late:
			return nil, true, fmt.Errorf("push %d of sender %s: %w", m.sequence, m.sender, ErrOvertaken)
		case err == nil && !known:
			return nil, false, nil
		case !anybody:
			late = r.isLate(user, m)
		}
	}
	switch {
	case errors.Is(err, homing.ErrReused):
		return nil, late, fmt.Errorf("message id %q: %w", m.id, ErrMessageReused)
	case errors.Is(err, homing.ErrFull):
		return nil, late, fmt.Errorf("%d messages are remembered: %w", rememberMessages, ErrOverloaded)
	}
	return d, late, err
}

// group has m remembered as one to so many users.
func (r *recent) group(m *message, users int) {
	m.many = r.deliveries.Many(m.id, m.fingerprint(), users)
}

// isLate tells whether m's sender has been here with a later push, and remembers this one. The caller holds mu.
func (r *recent) isLate(user string, m *message) bool {
	return m.sender != "" && !r.order.InTime(m.sender, user, m.sequence)
}

// hand gives m to the user's sessions in this process, each once whatever is repeated. The delivery is nil where there is none.
func (b *Backend) hand(now homing.Instant, user string, m *message) (*delivery, error) {
	sessions := b.table.of(user)
	d, late, err := b.recent.join(now, user, m, len(sessions) > 0)
	if d == nil || err != nil || late {
		return d, err
	}
	for _, s := range d.claim(sessions, m.except) {
		s.write(outgoing{frame: m.frame(), delivery: d})
	}
	return d, nil
}

// deliverLocal hands m to the user's sessions in this process and waits until its bytes are in the kernel. It returns the ids of those
// that took it. An error says that some have not yet, or that m is refused.
func (b *Backend) deliverLocal(ctx context.Context, user string, m *message) ([]string, error) {
	d, err := b.hand(bootClock(), user, m)
	if d == nil || err != nil {
		return nil, err
	}
	return d.outcome(ctx)
}

// broadcastLocal gives m to every session here, once whatever is repeated, and returns how many took it before ctx ended.
func (b *Backend) broadcastLocal(ctx context.Context, m *message) (int, error) {
	d, _, err := b.recent.join(bootClock(), "", m, true) // "" is nobody's id
	if err != nil {
		return 0, err
	}
	for _, s := range d.claim(b.table.all(), "") {
		s.write(outgoing{frame: m.frame(), delivery: d})
	}
	took, _ := d.wait(ctx)
	return len(took), nil
}
