package sender

import (
	"context"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/discovery"
)

const (
	maxCandidates = 5           // members tried for one user before the walk begins anew
	awayFor       = time.Second // that a member which did not answer is asked last
)

// member is whom calls are made to.
type member struct {
	name   string // its id; of Config.Via the URL
	client pushv1.PushServiceClient
	ring   pushv1.RingServiceClient
	hangUp func() // ends client's stream
	// away is set while it is asked last, for it did not answer; then calls would spend their time, and the retry budget, to find out
	// what is known. When the moment has come, one call tries it.
	away atomic.Pointer[time.Time]
}

// isAway tells whether others should be asked first.
func (m *member) isAway() bool {
	until := m.away.Load()
	return until != nil && time.Now().Before(*until)
}

// mayTry tells the same from the view of a call that would ask m now: after the moment, of several such only one may.
func (m *member) mayTry() bool {
	until := m.away.Load()
	if until == nil {
		return true
	}
	if m.isAway() {
		return false
	}
	next := time.Now().Add(awayFor)
	return m.away.CompareAndSwap(until, &next)
}

// heard notes how a try at m went.
func (m *member) heard(isAway bool) {
	if isAway {
		until := time.Now().Add(awayFor)
		m.away.Store(&until)
	} else if m.away.Load() != nil {
		m.away.Store(nil)
	}
}

// walk is a call's way along the members that may answer it: the user's home, the home's successors, and from the start again. Where the
// members change, it begins anew by the new ring.
type walk struct {
	sender *Sender
	user   string // "": any members, in random order
	seen   *discovery.Snapshot
	left   []*member
}

// next returns whom to ask now; nil while there is nobody.
func (w *walk) next(ctx context.Context) (*member, error) {
	if w.sender.via != nil {
		return w.sender.via, nil
	}
	snapshot, err := w.sender.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	if snapshot != w.seen || len(w.left) == 0 {
		w.seen = snapshot
		if w.left, err = w.sender.candidates(snapshot, w.user); err != nil || len(w.left) == 0 {
			return nil, err
		}
	}
	m := w.left[0]
	w.left = w.left[1:]
	return m, nil
}

// hasOther tells whether another member is next, not again the same.
func (w *walk) hasOther() bool { return len(w.left) > 0 }

// candidates lists whom to ask for user, best first; those that are away last.
func (s *Sender) candidates(snapshot *discovery.Snapshot, user string) ([]*member, error) {
	if user == "" {
		return awayLast(s.anyMembers(snapshot)), nil
	}
	list := make([]*member, 0, maxCandidates)
	for id := range snapshot.Ring.Successors(user) {
		if m := s.candidate(snapshot, id); m != nil {
			list = append(list, m)
		} else if len(list) == 0 {
			return nil, pushv1.NewError(connect.CodeUnimplemented, &pushv1.ErrorDetail{Member: id},
				fmt.Errorf("member %s has no push service: it does not use package backend", id))
		}
		if len(list) == maxCandidates {
			break
		}
	}
	return awayLast(list), nil
}

// candidate returns the member of that id; nil if it has no push service.
func (s *Sender) candidate(snapshot *discovery.Snapshot, id string) *member {
	known, _ := snapshot.Member(id)
	if known.RPCAddr == "" {
		return nil
	}
	return s.member(known)
}

// anyMembers lists a few members that are up, in random order.
func (s *Sender) anyMembers(snapshot *discovery.Snapshot) []*member {
	var list []*member
	for _, i := range mathrand.Perm(len(snapshot.Members)) {
		if known := snapshot.Members[i]; known.RPCAddr != "" && known.InRing() && len(list) < maxCandidates {
			list = append(list, s.member(known))
		}
	}
	return list
}

// awayLast puts those of list that are away behind the others.
func awayLast(list []*member) []*member {
	if !slices.ContainsFunc(list, func(m *member) bool { return m.away.Load() != nil }) {
		return list // nearly always
	}
	var front, back []*member
	for _, m := range list {
		if len(front) == 0 && m.mayTry() || len(front) > 0 && !m.isAway() {
			front = append(front, m)
		} else {
			back = append(back, m)
		}
	}
	return append(front, back...)
}
