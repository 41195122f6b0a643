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
	"github.com/selvedge/selvedge/internal/peerv1"
)

// presenceWidth is how many users of one call are worked on at once.
const presenceWidth = 64

// presence finds the sessions of users, wherever they are.
func (b *Backend) presence(ctx context.Context, users []string) []*pushv1.UserPresence {
	list := make([]*pushv1.UserPresence, len(users))
	each(len(users), presenceWidth, func(i int) { list[i] = b.presenceOf(ctx, users[i]) })
	return list
}

func (b *Backend) presenceOf(ctx context.Context, user string) *pushv1.UserPresence {
	e := b.newErrand(user, nil)
	b.home.settle(ctx, e)
	out := &pushv1.UserPresence{User: user, Sessions: e.shown}
	if err := e.err(); err != nil {
		out.Error = b.resultError(err)
	}
	return out
}

// sessionsShown lists the user's sessions here.
func (b *Backend) sessionsShown(user string) (list []*pushv1.Session) {
	for _, s := range b.table.of(user) {
		list = append(list, &pushv1.Session{
			Id: s.id, Device: s.device, Backend: b.cfg.ID, Since: s.since.UTC().Format(time.RFC3339), Address: s.address,
		})
	}
	return list
}

// disconnect closes the sessions that the user has now, wherever they are, and returns how many there were to close.
func (b *Backend) disconnect(ctx context.Context, r *pushv1.DisconnectRequest) (closed int, err error) {
	presence := b.presenceOf(ctx, r.User)
	if presence.Error != nil {
		err = fmt.Errorf("%s: %w", presence.Error.Message, ErrUnsettled)
	}
	holders := make(map[string][]string)
	for _, s := range presence.Sessions {
		if r.Device == "" || s.Device == r.Device {
			holders[s.Backend] = append(holders[s.Backend], s.Id)
		}
	}
	closed = len(b.closeSessions(r.User, holders[b.cfg.ID], r.Code, r.Reason))
	for _, peer := range b.home.known() {
		if ids := holders[peer.Member]; len(ids) > 0 {
			n, failure := b.home.closeThere(ctx, peer, &peerv1.Disconnect{User: r.User, Sessions: ids, Code: r.Code, Reason: r.Reason})
			closed += n
			err = errors.Join(err, failure)
		}
	}
	return closed, err
}

// closeSessions closes those of the user's sessions named that are here, and returns which they were.
func (b *Backend) closeSessions(user string, ids []string, code uint32, reason string) (closed []string) {
	for _, s := range b.table.of(user) {
		if slices.Contains(ids, s.id) && s.beginClose(Kicked, ws.StatusCode(code), reason) {
			closed = append(closed, s.id)
		}
	}
	return closed
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
