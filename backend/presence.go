package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"
	"github.com/gobwas/ws"

	"github.com/selvedge/selvedge/backend/pushv1"
)

// presence asks every member for its sessions of users, since only all of them together prove an absence.
func (b *Backend) presence(ctx context.Context, users []string) []*pushv1.UserPresence {
	peers := b.homingView().Peers
	lists := make([][]*pushv1.UserPresence, len(peers)+1)
	failures := make([]error, len(peers))
	each(len(peers)+1, len(peers)+1, func(i int) {
		if i == len(peers) {
			lists[i] = b.presenceLocal(users)
			return
		}
		list, err := b.peers.presence(ctx, peers[i], users)
		if err == nil && len(list) != len(users) {
			err = fmt.Errorf("member %s answered for %d of %d users: %w", peers[i], len(list), len(users), ErrUnsettled)
		}
		if err != nil && !isGone(err) {
			failures[i] = err
		} else if err == nil {
			lists[i] = list
		}
	})
	merged := make([]*pushv1.UserPresence, len(users))
	incomplete := errors.Join(failures...)
	for i, user := range users {
		merged[i] = &pushv1.UserPresence{User: user}
		for _, list := range lists {
			if list != nil {
				merged[i].Sessions = append(merged[i].Sessions, list[i].Sessions...)
			}
		}
		if incomplete != nil {
			merged[i].Error = b.resultError(incomplete)
		}
	}
	return merged
}

func (b *Backend) presenceLocal(users []string) []*pushv1.UserPresence {
	list := make([]*pushv1.UserPresence, len(users))
	for i, user := range users {
		list[i] = &pushv1.UserPresence{User: user}
		for _, s := range b.table.of(user) {
			list[i].Sessions = append(list[i].Sessions, &pushv1.Session{
				Id: s.id, Device: s.device, Backend: b.cfg.ID, Since: s.since.UTC().Format(time.RFC3339), Address: s.address,
			})
		}
	}
	return list
}

// disconnect closes the sessions that the user has now, wherever they are, and returns how many there were to close.
func (b *Backend) disconnect(ctx context.Context, r *pushv1.DisconnectRequest) (closed int, err error) {
	presence := b.presence(ctx, []string{r.User})[0]
	holders := make(map[string][]string)
	for _, s := range presence.Sessions {
		if r.Device == "" || s.Device == r.Device {
			holders[s.Backend] = append(holders[s.Backend], s.Id)
		}
	}
	if presence.Error != nil {
		err = fmt.Errorf("%s: %w", presence.Error.Message, ErrUnsettled)
	}
	for holder, ids := range holders {
		if holder == b.cfg.ID {
			closed += b.closeSessions(r.User, ids, r.Code, r.Reason)
			continue
		}
		n, failure := b.peers.disconnect(ctx, holder, r.User, ids, r.Code, r.Reason)
		closed += n
		if failure != nil && !isGone(failure) {
			err = errors.Join(err, failure)
		}
	}
	return closed, err
}

// closeSessions closes those of the user's sessions named that are here.
func (b *Backend) closeSessions(user string, ids []string, code uint32, reason string) (closed int) {
	for _, s := range b.table.of(user) {
		if slices.Contains(ids, s.id) && s.beginClose(Kicked, ws.StatusCode(code), reason) {
			closed++
		}
	}
	return closed
}

// broadcastLocal gives m to every session here, once whatever is repeated, and returns how many took it before ctx ended. The
// error is ErrMessageReused.
func (b *Backend) broadcastLocal(ctx context.Context, m *message) (int, error) {
	fingerprint := m.fingerprint()
	d := b.recent.join(recentKey{"", m.id}, fingerprint) // "" is nobody's id
	if d.fingerprint != fingerprint {
		return 0, fmt.Errorf("message id %q: %w", m.id, ErrMessageReused)
	}
	for _, s := range d.claim(b.table.all(), "") {
		s.write(outgoing{frame: m.frame(), delivery: d})
	}
	took, _ := d.wait(ctx)
	return len(took), nil
}

// checkClose refuses what cannot stand in a close frame. 0 and "" ask for the defaults.
func checkClose(code uint32, reason string) error {
	if code != 0 && (code > 4999 || !validCloseCode(ws.StatusCode(code))) {
		return invalid("code %d cannot stand in a close frame; want 1008, or 3000 to 4999 for your own", code)
	}
	if len(reason) > maxCloseReason || !utf8.ValidString(reason) {
		return invalid("reason: want at most %d bytes of UTF-8", maxCloseReason)
	}
	return nil
}

func invalid(format string, args ...any) error {
	return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf(format, args...))
}
